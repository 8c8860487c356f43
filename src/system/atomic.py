"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)
ALMOST_NOTHING = 1 << 16  # bytes; libraries that hide why they could not write leave a full disk with less


@contextmanager
def atomic_write(file: Path, durable: bool = True) -> Iterator[Path]:
    """A path to write to, in the folder of `file`, which is made; it becomes `file` when the block ends without error.

    Until then, and after an error, a `file` that was there stays as it was.

    Args:
        durable: wait until the disk has it, so that a power cut finds it whole, too; for many small files that is slow.

    Raises:
        OSError: it cannot be written; of a full disk, naming the disk.
    """
    part = file.with_name(f".{file.stem}.part{file.suffix}")  # libraries tell formats by the suffix
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        if durable:
            with part.open("rb+") as stream:
                os.fsync(stream.fileno())
        part.replace(file)
    except Exception as error:
        raise explain_full_disk(error, file) from error
    finally:
        part.unlink(missing_ok=True)


def write_text(text: str, file: Path) -> None:
    """Write a text file in UTF-8, whole or not at all. Raises as `atomic_write`."""
    with atomic_write(file) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(content: Any, file: Path, indent: int | None = 1) -> None:
    """Write a JSON file, whole or not at all. Raises as `atomic_write`."""
    write_text(json.dumps(content, indent=indent), file)


def check_writable(folder: Path) -> None:
    """Try whether something can be written in a folder, without making it. Raises OSError if not."""
    tempfile.TemporaryDirectory(dir=nearest(folder)).cleanup()


def nearest(place: Path) -> Path:
    """A file or folder, or the first one above it that is there."""
    return next(one for one in (place.absolute(), *place.absolute().parents) if one.exists())


def disk_of(place: Path) -> Path:
    """Where the disk is mounted that a file or folder lies on, or would lie on."""
    there = nearest(place)
    return next(one for one in (there, *there.parents) if os.path.ismount(one))


def explain_full_disk(error: Exception, file: Path) -> Exception:
    """The error, or, where a disk without space is behind it, one that says which disk that is."""
    usage = shutil.disk_usage(nearest(file))
    if getattr(error, "errno", None) not in FULL and usage.free > ALMOST_NOTHING:
        return error
    return OSError(
        f"{file}: cannot be written, the disk {disk_of(file)} is full ({usage.free / 1e6:.1f} of "
        f"{usage.total / 1e6:.0f} MB are free); make space there and start the same command again"
    )
