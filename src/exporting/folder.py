"""The folder of an export: written whole or not at all, and compared with its manifest."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import Any

from src.exporting.manifest import FORMAT, MANIFEST, read_manifest
from src.system.atomic import check_writable

LATER = ("latency.json",)  # what other commands write into an export


def check_target(folder: Path) -> None:
    """Raise ValueError for a folder that holds something else than an export, OSError if nothing can be written."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        try:
            read_manifest(folder)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"out={folder}: it is there and no {FORMAT}; expected a new or empty folder, or an export to replace"
            ) from error
    check_writable(folder)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` if the block ends without an error."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
        new, old = Path(place, "new"), Path(place, "old")
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """The size and the digest of every file in a folder."""
    entries = {}
    for file in sorted(folder.iterdir()):
        with file.open("rb") as stream:
            entries[file.name] = {"bytes": file.stat().st_size, "sha256": file_digest(stream, "sha256").hexdigest()}
    return entries


def check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise ValueError or FileNotFoundError unless every file is there as the manifest lists it."""
    for name, entry in manifest["files"].items():
        if Path(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"{folder / MANIFEST}: files: {name!r} is no name of a file in this folder")
        file = folder / name
        if file.is_symlink() or not file.is_file():
            raise FileNotFoundError(f"{file}: the manifest lists it, and it is not there")
        with file.open("rb") as stream:
            digest = file_digest(stream, "sha256").hexdigest()
        if (file.stat().st_size, digest) != (entry["bytes"], entry["sha256"]):
            raise ValueError(f"{file}: other content than the manifest lists; export again")


def pushed_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The names of the files that belong to an export."""
    return [MANIFEST, *manifest["files"], *(name for name in LATER if (folder / name).is_file())]
