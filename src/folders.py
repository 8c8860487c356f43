"""Folders of jobs: what they are called, and that one command at a time works in them."""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path

from src.mistakes import fail

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
