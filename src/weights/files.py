"""Files of tensors, written whole, and read without running what is in them."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from src.atomic import atomic_write

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


class PlainDict(dict):
    """A dictionary that a pickle can fill, and not give attributes."""

    def __setstate__(self, state: object) -> None:
        """torch keeps versions there, which nobody needs."""


class PlainType:
    """What a pickle calls a type of numbers, instead of numpy's own, which it could bend."""

    def __init__(self, name: str, *_: object):
        if not re.fullmatch(r"[<>|=]?([fiu][1248]|b1)", name):
            raise RefusedError(f"numpy.dtype {name}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        """The order of bytes comes second."""
        self.dtype = self.dtype.newbyteorder(state[1])


class PlainArray:
    """What a pickle calls an array: made of bytes of its own, and neither indexed nor called."""

    array: np.ndarray

    def __init__(self, *_: object):
        """An array that is empty yet (`_reconstruct`)."""

    def __setstate__(self, state: tuple) -> None:
        """Version, shape, type, whether columns come first, and bytes."""
        _, shape, kind, columns_first, content = state
        self.fill(content.encode("latin1") if isinstance(content, str) else content, kind, shape, "CF"[columns_first])

    def fill(self, content: bytes, kind: PlainType, shape: tuple[int, ...], order: Any) -> "PlainArray":
        """Hold numbers in this machine's order of bytes."""
        if not isinstance(content, bytes | bytearray) or not isinstance(kind, PlainType):
            raise RefusedError("an array of something other than bytes")
        numbers = np.frombuffer(content, kind.dtype).reshape(shape, order=order)
        self.array = numbers.astype(kind.dtype.newbyteorder("="))
        return self


def from_buffer(content: bytes, kind: PlainType, shape: tuple[int, ...], order: str) -> PlainArray:
    """How protocol 5 holds arrays."""
    return PlainArray().fill(content, kind, shape, order)


def no_bytes() -> bytes:
    """How protocol 2 holds bytes of length 0."""
    return b""


def latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 holds other bytes."""
    if encoding != "latin1":
        raise RefusedError(f"_codecs.encode to {encoding}")
    return text.encode(encoding)


ADMITTED = {
    "collections.OrderedDict": PlainDict,
    "numpy.ndarray": "numpy.ndarray",  # a mere name, which says what to reconstruct
    "numpy.dtype": PlainType,
    **dict.fromkeys(("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"), PlainArray),
    **dict.fromkeys(("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"), from_buffer),
    "__builtin__.bytes": no_bytes,
    "_codecs.encode": latin1,
}


class PlainUnpickler(pickle.Unpickler):
    """Reads arrays and plain containers. Raises RefusedError naming whatever else a file asks for."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global name."""
        if f"{module}.{name}" not in ADMITTED:
            raise RefusedError(f"{module}.{name}")
        return ADMITTED[f"{module}.{name}"]


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
        if head.startswith((ZIP, OLD_TORCH)):
            return torch.load(file, "cpu", weights_only=True, mmap=mmap and head.startswith(ZIP))
        if head.startswith(PICKLE):
            with file.open("rb") as stream:
                return PlainUnpickler(stream, encoding="latin1").load()
    except Exception as error:
        raise ValueError(f"{setting}={file}: not a readable checkpoint ({explain(error)})") from error
    raise ValueError(f"{setting}={file}: not a checkpoint, it {look(head)}")


def write_tensors(content: dict[str, Any], file: Path) -> None:
    """Write what torch saves, whole or not at all. Raises as `atomic_write`."""
    with atomic_write(file) as part, part.open("wb") as stream:
        torch.save(content, stream)


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
    if isinstance(error, RuntimeError | SafetensorError | EOFError | pickle.UnpicklingError) and str(error):
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
        if isinstance(value, PlainArray):
            value = torch.from_numpy(value.array)
        if not isinstance(key, str) or not isinstance(value, Tensor):
            under = repr(key) if isinstance(key, str) else f"a {type(key).__name__}"
            raise ValueError(f"{name}: holds {type(value).__name__} under {under}, expected tensors by name")
        found[key] = value
    if not found:
        raise ValueError(f"{name}: holds {type(content).__name__}, expected tensors by name")
    return found
