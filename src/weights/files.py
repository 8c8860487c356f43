"""Files of tensors, written whole, and read without running what is in them."""

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from src.system.atomic import atomic_write
from src.weights.pickles import PlainArray, PlainTensor, PlainUnpickler, RefusedError, named_by, placeholder, refuse
from src.weights.torch_files import OLD_TORCH, ZIP, read_old, read_zip

PICKLE = b"\x80"
TENSORS = (Tensor, PlainTensor, PlainArray)  # and what stands for them
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


def load(file: Path, setting: str, mmap: bool = False) -> Any:
    """What torch, safetensors or pickle saved. Raises ValueError for what is broken or would run code.

    Args:
        setting: that named the file, for the message.
        mmap: leave tensors on disk until they are looked at, where the format can.
    """
    read_torch = partial(torch.load, map_location="cpu", weights_only=True)
    readers: dict[bytes | tuple[bytes, ...], Callable[[Path], Any]] = {
        ZIP: partial(read_torch, mmap=mmap),
        OLD_TORCH: read_torch,
        PICKLE: partial(read_pickle, stand_in=refuse),
    }
    return read_by(readers, file, setting)


def records(file: Path, setting: str) -> Any:
    """As `load`, with records in the place of tensors, which `made` makes, and placeholders of what would run code."""
    return read_by({ZIP: read_zip, OLD_TORCH: read_old, PICKLE: read_pickle}, file, setting)


def read_by(readers: Mapping[bytes | tuple[bytes, ...], Callable[[Path], Any]], file: Path, setting: str) -> Any:
    """What the reader makes of a file that begins as it asks. Raises ValueError as `load` does."""
    with file.open("rb") as stream:
        head = stream.read(512)
    safetensors = file.suffix == ".safetensors" and head[8:9] == b"{"
    reader = load_file if safetensors else next((readers[one] for one in readers if head.startswith(one)), None)
    if reader is None:
        raise ValueError(f"{setting}={file}: not a checkpoint, it {look(head)}")
    try:
        return reader(file)
    except Exception as error:
        raise ValueError(f"{setting}={file}: not a readable checkpoint ({explain(error)})") from error


def read_pickle(file: Path, stand_in: Callable[[str], Any] = placeholder) -> Any:
    """What a model zoo has pickled."""
    with file.open("rb") as stream:
        return PlainUnpickler(stream, stand_in).load()


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
        return f"reading it would run or make {repr(str(error))[1:-1]}, which is refused"
    code = re.search(r"(?:GLOBAL|Unsupported class) (\S+)", str(error))
    if code:
        return f"reading it would run or make {code[1]}, which is refused"
    if isinstance(error, RuntimeError | SafetensorError | EOFError | pickle.UnpicklingError | zipfile.BadZipFile):
        said = str(error).split(". ")[0].splitlines() or [type(error).__name__]
        return f"{said[0]}; it is cut short or damaged"
    return f"it is cut short or damaged, {type(error).__name__}"


def made(value: Any, name: str, key: object) -> Tensor:
    """The tensor that a record is of. Raises ValueError naming the file, the key and what else it is."""
    named = named_by(value)
    if not isinstance(key, str) or not (named or isinstance(value, TENSORS)):
        under = repr(key) if isinstance(key, str) else f"a {type(key).__name__}"
        raise ValueError(f"{name}: holds {type(value).__name__} under {under}, expected tensors by name")
    try:
        if named:
            raise RefusedError(named)
        return value if isinstance(value, Tensor) else value.tensor()
    except Exception as error:
        raise ValueError(f"{name}: not a readable checkpoint (its {key!r}: {explain(error)})") from error


def tensors(content: Any, name: str) -> dict[str, Tensor]:
    """The tensors of what was read, by name, from where Lightning, detectron2 and timm keep them.

    Raises ValueError for what holds no tensors by name.
    """
    place = "content"
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and key in content:
            place, content = key, content[key]
            break
    if named_by(content):
        made(content, name, place)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{name}: holds {type(content).__name__}, expected tensors by name")
    return {key: made(value, name, key) for key, value in content.items()}
