"""Run folders: their names, one command at a time in each, and whether the run in them has finished."""

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path

from src.system.atomic import write_json
from src.system.terminal import fail

FILE = "done.json"
LONGEST = 100  # characters of a name


def folder_name(name: str) -> str:
    """A name that a folder can have."""
    plain = re.sub(r"[^\w.,=+\[\]-]", "_", name)
    return plain if len(plain) <= LONGEST else f"{plain[:LONGEST]}_{digest(plain)}"


def digest(text: str) -> str:
    """Eight letters that stand for a text."""
    return sha256(text.encode()).hexdigest()[:8]


def claim(folder: Path) -> Path:
    """Make a folder that nobody else has made: this one, or FOLDER_2 and so on."""
    for number in count(1):
        place = folder if number == 1 else folder.with_name(f"{folder.name}_{number}")
        try:
            place.mkdir(parents=True)
            return place
        except FileExistsError:
            continue
    raise AssertionError  # there is always another number


@contextmanager
def locked(folder: Path, setting: str = "hydra.sweep.dir", what: str = "a sweep") -> Iterator[None]:
    """Keep a folder, which some setting names, to one command. Raises SystemExit, in one line, where one is running."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail(f"{folder}: {what} is running there; wait for it, or give this one {setting}=FOLDER of its own")
        except OSError:
            pass  # a disk of a cluster that knows no locks
        yield


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
