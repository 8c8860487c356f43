"""Checkpoints in run folders: which is the last one, and whether it is whole."""

import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from src.system.terminal import say_once
from src.weights.files import load


def newest(runs: Path, name: str) -> Path | None:
    """The last checkpoint of the newest run of a name; where it is damaged, as `whole` has it."""
    found = (runs / name).rglob("checkpoints/last.ckpt")
    file = max(found, key=lambda file: file.stat().st_mtime, default=None)
    return None if file is None else whole(file) or file


def whole(file: Path) -> Path | None:
    """A checkpoint; where it is damaged, which is said, the one beside it that has most steps, if any is whole."""
    try:
        read_checkpoint(file, to_the_end=True)
        return file
    except ValueError as error:
        found: tuple[Path | None, int] = None, 0
        for other in file.parent.glob("[!.]*.ckpt"):
            with suppress(ValueError):
                step = read_checkpoint(other, to_the_end=True)["global_step"]
                found = max(found, (other, step), key=lambda one: one[1])
        instead = f"{found[0]} is taken, of step {found[1]}" if found[0] else "no checkpoint beside it is whole"
        say_once(f"{error}; {instead}")
        return found[0]


def read_checkpoint(file: Path, to_the_end: bool = False) -> dict[str, Any]:
    """What a checkpoint of ours holds, tensors left on disk. Raises ValueError for any other file.

    Args:
        to_the_end: look at every byte, as the checksums in the file have it.
    """
    content = load(file, "ckpt_path", mmap=True)
    if to_the_end and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if (part := archive.testzip()) is not None:
                raise ValueError(f"ckpt_path={file}: not a readable checkpoint ({part} in it is damaged)")
    if not {"state_dict", "pytorch-lightning_version"} <= set(content):
        raise ValueError(f"ckpt_path={file}: not a checkpoint of this project; model.weights= takes plain weights")
    return content
