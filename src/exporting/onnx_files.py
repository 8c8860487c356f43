"""Writes ONNX models: each complete in itself, or several with one file of weights, in which no weight stands twice."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

INLINE = 1024  # bytes of a tensor that stays in the model's own file
ALIGNED = 64  # bytes; the place of a tensor in the file is a multiple
LARGEST = 2_000_000_000  # bytes of a model in one file; a protocol buffer has less than 2 GiB


class WeightsFile:
    """A file of tensors that models point to; equal ones are stored once."""

    def __init__(self, file: Path):
        self.file = file
        self.places: dict[bytes, tuple[int, int]] = {}  # offset and length, by digest

    def __enter__(self) -> "WeightsFile":
        self.stream: BinaryIO = self.file.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        if not self.places:
            self.file.unlink()

    def add(self, content: bytes) -> tuple[int, int]:
        """Where these bytes stand: offset and length."""
        key = sha256(content).digest()
        if key not in self.places:
            self.stream.write(bytes(-self.stream.tell() % ALIGNED))
            self.places[key] = self.stream.tell(), len(content)
            self.stream.write(content)
        return self.places[key]

    def take(self, model: Any) -> None:
        """Move the large tensors of a model (a proto) here; the model then points to them."""
        import onnx

        for tensor in large(model):
            offset, length = self.add(content_of(tensor))
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(field)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            del tensor.external_data[:]
            for key, value in (("location", self.file.name), ("offset", str(offset)), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)


def large(model: Any) -> Iterator[Any]:
    """The tensors of a model that are worth a place in another file."""
    return (tensor for tensor in model.graph.initializer if len(content_of(tensor)) >= INLINE)


def content_of(tensor: Any) -> bytes:
    """The numbers of a tensor as they stand in memory."""
    from onnx import numpy_helper

    return tensor.raw_data or numpy_helper.to_array(tensor).tobytes()


def write_complete(model: Any, file: Path) -> None:
    """Write a model with all its tensors; those of a model that is too large for one file stand beside it, in .bin."""
    if sum(len(content_of(tensor)) for tensor in model.graph.initializer) > LARGEST:
        with WeightsFile(file.with_suffix(".bin")) as weights:
            weights.take(model)
    file.write_bytes(model.SerializeToString())
