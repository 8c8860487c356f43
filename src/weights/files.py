"""Files of tensors, read without running what is in them."""

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
OLD_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, 2)  # how torch.save began before 1.6
# What a file that holds no tensors begins with, and what to do about it.
BEGINNINGS = (
    (rb"$", "is empty"),
    (rb"version https://git-lfs", "is a Git LFS pointer, which stands for the file; `git lfs pull` fetches it"),
    (rb"(?i)\s*<(!doctype|html|\?xml|head)", "is a web page that was saved in place of the file"),
    (rb"\s*[{\[]", "is JSON text"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf", "is a compressed archive; unpack it first"),
    (rb"\x89HDF", "is an HDF5 file, of Keras perhaps"),
    (rb"[\x09\x0a\x0d\x20-\x7e]+$", "is text"),
)


class RefusedError(pickle.UnpicklingError):
    """A pickle asks for something other than arrays and plain containers."""


def no_bytes() -> bytes:
    """How protocol 2 holds bytes of length 0."""
    return b""


def latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 holds other bytes."""
    if encoding != "latin1":
        raise RefusedError(f"_codecs.encode to {encoding}")
    return text.encode(encoding)


NUMPY_CORES = ("core", "_core")  # of numpy 1 and 2


class PlainUnpickler(pickle.Unpickler):
    """Reads arrays and plain containers. Raises RefusedError naming whatever else a file asks for."""

    ADMITTED = {  # noqa: RUF012
        ("collections", "OrderedDict"): OrderedDict,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        **{(f"numpy.{core}.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0] for core in NUMPY_CORES},
        **{(f"numpy.{core}.numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0] for core in NUMPY_CORES},
        ("__builtin__", "bytes"): no_bytes,
        ("_codecs", "encode"): latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global name."""
        if (module, name) not in self.ADMITTED:
            raise RefusedError(f"{module}.{name}")
        return self.ADMITTED[module, name]


def load(file: Path, setting: str, mmap: bool = False) -> Any:
    """What torch, safetensors or pickle saved. Raises ValueError for what is broken or would run code.

    Args:
        setting: that named the file, for the message.
        mmap: leave tensors on disk until they are looked at, where the format can.
    """
    with file.open("rb") as stream:
        head = stream.read(512)
    try:
        if file.suffix == ".safetensors" and head[8:9] == b"{":
            return load_file(file)
        if head.startswith(ZIP):
            return torch.load(file, "cpu", weights_only=True, mmap=mmap)
        if head.startswith(OLD_TORCH):
            return torch.load(file, "cpu", weights_only=True)
        if head.startswith(PICKLE):
            with file.open("rb") as stream:
                return PlainUnpickler(stream, encoding="latin1").load()
    except Exception as error:
        raise ValueError(f"{setting}={file}: not a readable checkpoint ({explain(error)})") from error
    raise ValueError(f"{setting}={file}: not a checkpoint, it {look(head)}")


def look(head: bytes) -> str:
    """What a file is that begins so, and is none of ours."""
    said = (words for beginning, words in BEGINNINGS if re.match(beginning, head))
    return next(said, "is of a format that is not known here; torch, safetensors and pickle files are")


def explain(error: Exception) -> str:
    """Why a file cannot be read; never torch's own advice to read it unsafely."""
    if isinstance(error, RefusedError):
        return f"reading it would run or make {error}, which is refused"
    code = re.search(r"(?:GLOBAL|Unsupported class) (\S+)", str(error))
    if code:
        return f"reading it would run or make {code[1]}, which is refused"
    if isinstance(error, RuntimeError | SafetensorError | EOFError | pickle.UnpicklingError):
        return f"{str(error).split('. ')[0].splitlines()[0]}; it is cut short or damaged"
    return f"it is cut short or damaged, {type(error).__name__}"


def tensors(content: Any, name: str) -> dict[str, Tensor]:
    """The tensors of what was loaded, by name, from where Lightning, detectron2 and timm keep them.

    Raises ValueError for what holds no tensors by name.
    """
    if isinstance(content, dict):
        content = content.get("state_dict", content.get("model", content))
    found = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.dtype.itemsize <= 8:
            value = torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
        if not isinstance(key, str) or not isinstance(value, Tensor):
            what = f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__
            raise ValueError(f"{name}: holds {what} under {key!r}, expected tensors by name")
        found[key] = value
    if not found:
        raise ValueError(f"{name}: holds {type(content).__name__}, expected tensors by name")
    return found
