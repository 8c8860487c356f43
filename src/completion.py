"""Whether a run has come to its end, as its own folder says."""

import json
from pathlib import Path

from src.atomic import write_json

FILE = "done.json"


def finish(folder: Path, why: str, step: int | None = None) -> None:
    """Note in a run folder that the run has come to its end.

    Args:
        why: it ended, in words.
        step: the last one of a training, of which `scores.json`, if there is one, has to be.
    """
    write_json({"why": why, "step": step}, folder / FILE)


def begin(folder: Path) -> None:
    """Note that a run in a folder has not come to its end, or no more."""
    (folder / FILE).unlink(missing_ok=True)


def finished(folder: Path) -> bool:
    """Whether a run came to its end, and its scores are whole and of its last step."""
    try:
        step = json.loads((folder / FILE).read_text())["step"]
        found = [
            json.loads(file.read_text()) for name in ("scores.json", "gate.json") if (file := folder / name).is_file()
        ]
        return all(step is None or "exits" not in scores or scores["step"] == step for scores in found)
    except (OSError, ValueError, KeyError, TypeError):
        return False
