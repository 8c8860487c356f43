"""Files of tensors, read without running what is in them."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file


def load(file: Path, setting: str, mmap: bool = False) -> Any:
    """What torch or safetensors saved. Raises ValueError for what is broken or would run code.

    Args:
        setting: that named the file, for the message.
    """
    try:
        return (
            load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True, mmap=mmap)
        )
    except Exception as error:
        raise ValueError(f"{setting}={file}: not a readable checkpoint ({explain(error)})") from error


def explain(error: Exception) -> str:
    """Why a file cannot be read; never torch's own advice to read it unsafely."""
    code = re.search(r"(?:GLOBAL|Unsupported class) (\S+)", str(error))
    if code:
        return f"reading it would run or make {code[1]}, which is refused"
    if not isinstance(error, RuntimeError | SafetensorError) or "mmap can only" in str(error):
        return "torch did not save it; is it the right file, and whole?"
    return f"{str(error).split('. ')[0].splitlines()[0]}; is it the right file, and whole?"
