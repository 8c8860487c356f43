"""Download archives of a data set, resumably, unpack them where the readers expect them, and check them."""

import argparse
import hashlib
import shutil
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, NamedTuple, cast
from urllib.error import URLError

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class Archive(NamedTuple):
    """A zip or tar file and what it must leave behind."""

    part: str  # of the data set
    path: str  # below the base URL, or a URL
    makes: dict[str, int]  # number of files by folder; 1 for a single file
    within: str = ""  # folder inside the archive
    sha1: str | None = None  # None if it is not published


def prepare_all(
    description: str | None, root: str, url: str, archives: Sequence[Archive], arguments: list[str] | None
) -> argparse.Namespace:
    """Prepare the archives that a command line selects; return its arguments. Raises SystemExit for an OSError.

    Args:
        description: of the script that runs.
        root, url: defaults of `--root` and `--url`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(root), help="folder to fill (default: %(default)s)")
    parser.add_argument("--url", default=url, help="where the archives lie (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep the archives after unpacking")
    parser.set_defaults(only=None)
    if len(parts := list(dict.fromkeys(archive.part for archive in archives))) > 1:
        parser.add_argument("--only", choices=parts, help="one part (default: all)")
    args = parser.parse_args(arguments)
    try:
        for archive in archives:
            if args.only in (None, archive.part):
                prepare(archive, args.root, args.url, args.keep)
    except OSError as error:  # unreachable, interrupted, disk full
        sys.exit(f"error: {error}")
    return args


def prepare(archive: Archive, root: Path, url: str, keep: bool) -> None:
    """Download, unpack and check one archive, unless all its files exist."""
    wanted = ", ".join(archive.makes)
    if not lacking(archive, root):
        print(f"there already: {wanted}")
        return
    file = root / "archives" / Path(archive.path).name
    if not file.exists():
        download(archive.path if "://" in archive.path else f"{url}/{archive.path}", file)
    check_sum(archive, file)
    print(f"unpacking {file}")
    unpack(file, root, set(archive.makes), archive.within)
    if left := lacking(archive, root):
        raise OSError(f"{file} is not as expected, after unpacking: {'; '.join(left)}. Remove it and run again.")
    if not keep:
        file.unlink()
    print(f"done: {wanted}")


def lacking(archive: Archive, root: Path) -> list[str]:
    """Describe the missing files of an archive."""
    missing = []
    for name, expected in archive.makes.items():
        path = root / name
        count = sum(1 for _ in path.iterdir()) if path.is_dir() else int(path.exists())
        if count != expected:
            missing.append(f"{path} has {count} files, expected {expected}" if path.is_dir() else f"{path} is missing")
    return missing


def check_sum(archive: Archive, file: Path) -> None:
    """Raise OSError if an archive differs from the released one."""
    if archive.sha1 is None:
        return
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha1").hexdigest()
    if digest != archive.sha1:
        raise OSError(f"{file} has the SHA-1 {digest}, expected {archive.sha1}. Remove it and run again.")


def download(url: str, file: Path) -> None:
    """Download a file; resume an interrupted attempt (file.part)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60) as answer:
            length = answer.headers["Content-Length"]
        total = None if length is None else int(length)  # archives packed on request have none
        if total is None or not part.exists() or part.stat().st_size != total:
            fetch(url, part, total)
    except URLError as error:
        raise OSError(
            f"{url} cannot be fetched ({error.reason}). Check the network and run again, or put {file.name} into "
            f"{file.parent.absolute()} by other means."
        ) from error
    except HTTPException as error:
        raise OSError(f"{url}: the download was interrupted ({error!r}); run again to resume") from error
    if total is not None and part.stat().st_size != total:
        raise OSError(f"{url}: the download ended at {part.stat().st_size} of {total} bytes; run again to resume")
    part.rename(file)


def fetch(url: str, part: Path, total: int | None) -> None:
    """Download the rest of a file of `total` bytes into `part`; all of it if the size is unknown."""
    start = part.stat().st_size if part.exists() else 0
    resumable = total is not None and 0 < start < total
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if resumable else {})
    columns = (TextColumn(part.stem), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with urllib.request.urlopen(request, timeout=60) as answer, Progress(*columns) as progress:
        resumed = answer.status == 206  # servers without ranges send the whole file, with status 200
        task = progress.add_task(url, total=total, completed=start if resumed else 0)
        with part.open("ab" if resumed else "wb") as stream:
            while block := answer.read(1 << 20):
                stream.write(block)
                progress.advance(task, len(block))


def unpack(file: Path, root: Path, wanted: set[str], within: str = "") -> None:
    """Extract the wanted files and folders of an archive, also from zips inside it."""
    for name, size, content in members(file):
        path = name.relative_to(within) if name.is_relative_to(within) else name
        target = root / path
        if str(path) in wanted or str(path.parent) in wanted:
            if not target.exists() or target.stat().st_size != size:
                target.parent.mkdir(parents=True, exist_ok=True)
                copy(content(), target)
        elif path.suffix == ".zip" and path.stem in wanted:
            inner = file.with_name(path.name)
            copy(content(), inner)
            unpack(inner, root, wanted)
            inner.unlink()


def members(file: Path) -> Iterator[tuple[Path, int, Callable[[], IO[bytes]]]]:
    """Yield path, size and content of every file in an archive."""
    try:
        if file.suffix == ".tar":
            with tarfile.open(file) as tar:
                for entry in tar:
                    if entry.isfile():
                        yield Path(entry.name), entry.size, partial(cast(Any, tar.extractfile), entry)
        else:
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    if not member.is_dir():
                        yield Path(member.filename), member.file_size, partial(archive.open, member)
    except (zipfile.BadZipFile, tarfile.ReadError) as error:
        raise OSError(f"{file} is not a whole {file.suffix[1:]} archive ({error}). Remove it and run again.") from error


def copy(source: IO[bytes], target: Path) -> None:
    with source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
