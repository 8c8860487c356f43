"""Callbacks that go by a score which exists, and write files which no other callback writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from src.config.schema import suggest


def check_monitors(callbacks: Sequence[Any], names: Sequence[str]) -> None:
    """Raise ValueError for a callback that monitors a score not among the names, and for two that write one file."""
    writers: dict[Path, str] = {}
    for callback in callbacks:
        monitor, kind = getattr(callback, "monitor", None), type(callback).__name__
        checkpoint = isinstance(callback, ModelCheckpoint)
        known = [*names, "epoch", "step"] if checkpoint else names
        if isinstance(monitor, str) and monitor not in known:
            close = suggest(monitor, names)
            raise ValueError(
                f"monitor={monitor} of {kind}: no score is called so{close}; there are: {', '.join(names)}"
            )
        if checkpoint and callback.filename is not None:
            file, writer = Path(str(callback.dirpath), f"{callback.filename}.ckpt"), f"{kind} (monitor={monitor})"
            if file in writers:
                raise ValueError(
                    f"callbacks: {writers[file]} and {writer} would both write {file}; give one another filename"
                )
            writers[file] = writer
