"""Run folders: their names and those of pictures, a lock for each, and whether the run in a folder has finished."""

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from src.records.scores import GATE_FILE, SCORES_FILE
from src.system.atomic import write_json
from src.system.terminal import fail

FILE = "done.json"
MAX_LENGTH = 100  # characters of a name


def folder_name(name: str) -> str:
    """Return a name that is valid for a folder; a long one is cut and ends with a digest."""
    plain = re.sub(r"[^\w.,=+\[\]-]", "_", name)
    return plain if len(plain) <= MAX_LENGTH else f"{plain[:MAX_LENGTH]}_{digest(plain)}"


def picture_name(image: str) -> str:
    """Return what the pictures of an image are called, without the number in front."""
    return Path(image).stem.replace(" ", "_")


def digest(text: str) -> str:
    """Return the first eight hexadecimal digits of a text's SHA-256."""
    return sha256(text.encode()).hexdigest()[:8]


def claim(folder: Path) -> Path:
    """Create a new folder: this one, or FOLDER_2 and so on if it exists."""
    place, number = folder, 1
    while True:
        try:
            place.mkdir(parents=True)
            return place
        except FileExistsError:
            number += 1
            place = folder.with_name(f"{folder.name}_{number}")


@contextmanager
def locked(folder: Path, setting: str = "hydra.sweep.dir", what: str = "a sweep") -> Iterator[None]:
    """Lock a folder, which `setting` names. Raises SystemExit if another command holds the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail(f"{folder}: {what} is running there; wait for it, or give this one {setting}=FOLDER of its own")
        except OSError:
            pass  # some file systems of clusters have no locks
        yield


def finish(folder: Path, why: str, step: int | None = None) -> None:
    """Note in a run folder that its run has finished, why, and the last step of a training, which is scored."""
    write_json({"why": why, "step": step}, folder / FILE)


def begin(folder: Path) -> None:
    """Note that the run in a folder is not finished."""
    (folder / FILE).unlink(missing_ok=True)


def finished(folder: Path) -> bool:
    """Whether a run has finished, and its score files are intact and of its last step."""
    try:
        step = json.loads((folder / FILE).read_text())["step"]
        files = [folder / name for name in (SCORES_FILE, GATE_FILE)]
        scores = [json.loads(file.read_text()) for file in files if file.is_file()]
        return all(step is None or "exits" not in content or content["step"] == step for content in scores)
    except (OSError, ValueError, KeyError, TypeError):
        return False
