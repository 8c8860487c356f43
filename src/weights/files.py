"""Reads files of tensors without running code in them, and writes them completely or not at all."""

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
from src.weights.pickles import PlainUnpickler, RefusedError, is_tensor, make, named_by
from src.weights.torch_files import OLD_TORCH, ZIP, read_old, read_zip

PICKLE = b"\x80"
# How files without tensors begin, and what they are.
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
    """The content of a file of torch, safetensors or pickle. Raises ValueError if it is damaged or would run code.

    Args:
        setting: that gave the file, for the message.
        mmap: read tensors from disk when they are used, if the format allows it.
    """
    read_torch = partial(torch.load, map_location="cpu", weights_only=True)
    readers: dict[bytes | tuple[bytes, ...], Callable[[Path], Any]] = {
        ZIP: partial(read_torch, mmap=mmap),
        OLD_TORCH: read_torch,
        PICKLE: partial(read_pickle, strict=True),
    }
    return read_by(readers, file, setting)


def records(file: Path, setting: str) -> Any:
    """As `load`, with placeholders for anything that would run code; `made` makes tensors of their records."""
    return read_by({ZIP: read_zip, OLD_TORCH: read_old, PICKLE: read_pickle}, file, setting)


def read_by(readers: Mapping[bytes | tuple[bytes, ...], Callable[[Path], Any]], file: Path, setting: str) -> Any:
    """The content of a file, by the reader for its first bytes. Raises ValueError as `load` does."""
    with file.open("rb") as stream:
        head = stream.read(512)
    safetensors = file.suffix == ".safetensors" and head[8:9] == b"{"
    reader = load_file if safetensors else next((readers[one] for one in readers if head.startswith(one)), None)
    if reader is None:
        kinds = (kind for beginning, kind in BEGINNINGS if re.match(beginning, head))
        kind = next(kinds, "is of a format that is not known here; torch, safetensors and pickle files are")
        raise ValueError(f"{setting}={file}: not a checkpoint, it {kind}")
    try:
        return reader(file)
    except Exception as error:
        raise ValueError(f"{setting}={file}: not a readable checkpoint ({explain(error)})") from error


def read_pickle(file: Path, strict: bool = False) -> Any:
    """The content of a plain pickle, as detectron2's model zoo has them."""
    with file.open("rb") as stream:
        return PlainUnpickler(stream, strict).load()


def write_tensors(content: dict[str, Any], file: Path) -> None:
    """Save by torch; the file is complete or does not appear. Raises as `atomic_write`."""
    with atomic_write(file) as part, part.open("wb") as stream:
        torch.save(content, stream)


def explain(error: Exception) -> str:
    """Why a file cannot be read, without torch's advice to read it unsafely."""
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
    """The tensor of a record. Raises ValueError with the file and the key if it is no tensor or cannot be read."""
    if not isinstance(key, str) or not (named_by(value) or is_tensor(value)):
        under = repr(key) if isinstance(key, str) else f"a {type(key).__name__}"
        raise ValueError(f"{name}: holds {type(value).__name__} under {under}, expected tensors by name")
    try:
        return make(value)
    except Exception as error:
        raise ValueError(f"{name}: not a readable checkpoint (its {key!r}: {explain(error)})") from error


def tensors(content: Any, name: str) -> dict[str, Tensor]:
    """The tensors in the content of a file, by name, from where Lightning, detectron2 and timm keep them.

    Raises ValueError if it holds anything else.
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
