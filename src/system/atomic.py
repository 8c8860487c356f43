"""Write files completely or not at all: beside their place, flushed to the disk, then renamed."""

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
ALMOST_NOTHING = 1 << 16  # bytes; a full disk has less, also if a library hides why it could not write


@contextmanager
def atomic_write(file: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a path to write to; it replaces `file` if the block ends without an error, else `file` is left as it was.

    Makes the folder. Raises OSError if the file cannot be written; for a full disk it names the disk.

    Args:
        durable: wait for the disk, so that the file survives a power cut; slow for many small files.
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
    """Write a text file in UTF-8, as `atomic_write`."""
    with atomic_write(file) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(content: Any, file: Path, indent: int | None = 1) -> None:
    """Write a JSON file, as `atomic_write`."""
    write_text(json.dumps(content, indent=indent), file)


def check_writable(folder: Path) -> None:
    """Raise OSError if nothing can be written in a folder; it is not made."""
    tempfile.TemporaryDirectory(dir=nearest(folder)).cleanup()


def nearest(place: Path) -> Path:
    """Return a file or folder, or the first one above it that exists."""
    return next(one for one in (place.absolute(), *place.absolute().parents) if one.exists())


def disk_of(place: Path) -> Path:
    """Return the mount point of the disk that a file or folder lies on, or would lie on."""
    return next(one for one in (nearest(place), *nearest(place).parents) if os.path.ismount(one))


def explain_full_disk(error: Exception, file: Path) -> Exception:
    """Return the error, or one that names the disk if a full disk is the reason."""
    usage = shutil.disk_usage(nearest(file))
    if getattr(error, "errno", None) not in FULL and usage.free > ALMOST_NOTHING:
        return error
    return OSError(
        f"{file}: cannot be written, the disk {disk_of(file)} is full ({usage.free / 1e6:.1f} of "
        f"{usage.total / 1e6:.0f} MB are free); make space there and start the same command again"
    )
