"""Reads torch's files as records: nothing that they name is run, and numbers are read when a tensor is made."""

import pickle
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from src.weights.pickles import TYPES, PlainUnpickler, RefusedError, Storage, named_by

ZIP = b"PK\x03\x04"
OLD_TORCH = tuple(pickle.dumps(0x1950A86A20F9469CFC6C, protocol) for protocol in (2, 3, 4, 5))  # before torch 1.6


class TorchUnpickler(PlainUnpickler):
    """Reads torch's pickles, whose tensors lie elsewhere in the file."""

    def __init__(self, stream: BinaryIO, read: Callable[[Any, int], Tensor]):
        super().__init__(stream)
        self.read = read
        self.dtypes: dict[Any, torch.dtype] = {}  # by the key of a storage

    def persistent_load(self, place: tuple[Any, ...]) -> Any:
        """The storage; the class of anything else, such as a module with its source."""
        what, kind, key, _, size, *view = (*place, None)
        dtype = TYPES.get(named_by(kind))
        if what != "storage" or dtype is None or any(view):
            return kind
        self.dtypes.setdefault(key, dtype)
        return Storage(dtype, key, size, self.read)


def read_zip(file: Path) -> Any:
    """The content of a file of torch 1.6 or later."""
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    root = next((name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")), None)
    if root is None:
        raise zipfile.BadZipFile("a zip archive without torch's data.pkl")
    if root + "constants.pkl" in names:
        raise RefusedError("a TorchScript program")
    if root + "byteorder" in names and archive.read(root + "byteorder").decode() != sys.byteorder:
        raise RefusedError("numbers in another machine's order of bytes")

    @cache
    def read(key: Any, size: int) -> Tensor:
        with archive.open(f"{root}data/{key}") as stream:
            return numbers(stream.read(size), size)

    with archive.open(root + "data.pkl") as stream:
        return TorchUnpickler(stream, read).load()  # type: ignore[arg-type]


def read_old(file: Path) -> Any:
    """The content of a file of torch before 1.6: several pickles, then the storages, each after its length."""
    places: dict[Any, tuple[int, int]] = {}  # offset and number of bytes of each storage

    @cache
    def read(key: Any, size: int) -> Tensor:
        start, length = places[key]
        with file.open("rb") as stream:
            stream.seek(start)
            return numbers(stream.read(min(size, length)), size)

    with file.open("rb") as stream:
        for _ in range(3):  # magic number, version, machine
            PlainUnpickler(stream).load()
        unpickler = TorchUnpickler(stream, read)
        content = unpickler.load()
        for key in PlainUnpickler(stream).load():
            length = int.from_bytes(stream.read(8), "little") * unpickler.dtypes[key].itemsize
            places[key] = stream.tell(), length
            stream.seek(length, 1)
        if stream.tell() > file.stat().st_size:
            raise EOFError("the file ends within its tensors")
    return content


def numbers(content: bytes, size: int) -> Tensor:
    """Bytes as a tensor of uint8. Raises EOFError if their number is not `size`."""
    if len(content) != size:
        raise EOFError("the file ends within its tensors")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.zeros(0, dtype=torch.uint8)
