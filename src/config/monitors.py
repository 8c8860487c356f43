"""What callbacks go by: scores that there are, and files that are not another callback's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from src.config.schema import suggest

OF_THE_TRAINER = ("epoch", "step")  # what a checkpoint may go by beside the scores of a task


def check_monitors(callbacks: Sequence[Any], names: Sequence[str]) -> None:
    """Refuse a callback that goes by a score which is not among the names, and two that write the same file.

    Raises ValueError, with the closest name first.
    """
    places: dict[str, str] = {}
    for callback in callbacks:
        monitor, kind = getattr(callback, "monitor", None), type(callback).__name__
        checkpoint = isinstance(callback, ModelCheckpoint)
        if isinstance(monitor, str) and monitor not in (*names, *(OF_THE_TRAINER if checkpoint else ())):
            close = suggest(monitor, names)
            raise ValueError(
                f"monitor={monitor} of {kind}: no score is called so{close}; there are: {', '.join(names)}"
            )
        if checkpoint and callback.filename is not None:
            place, who = f"{Path(str(callback.dirpath)) / callback.filename}.ckpt", f"{kind} (monitor={monitor})"
            if place in places:
                raise ValueError(
                    f"callbacks: {places[place]} and {who} would both write {place}; give one of them another filename"
                )
            places[place] = who
