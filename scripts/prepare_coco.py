"""Fetch COCO 2017 and lay it out as the readers expect; run it again to go on after an interruption.

python -m scripts.prepare_coco --root data/coco

Takes 20 GB of downloads and, until the archives are removed at the end of each, twice that on disk. Without a network,
put the archives into ROOT/archives by other means and run the same command.
"""

import argparse
import shutil
import sys
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class Archive(NamedTuple):
    """A zip file and what it must leave behind."""

    part: str  # images, instances or panoptic
    path: str  # below the base URL
    makes: dict[str, int]  # folders with their number of files, and single files (1)


TRAIN, VAL = 118_287, 5_000  # images
ARCHIVES = (
    Archive("images", "zips/val2017.zip", {"val2017": VAL}),
    Archive("images", "zips/train2017.zip", {"train2017": TRAIN}),
    Archive(
        "instances",
        "annotations/annotations_trainval2017.zip",
        {"annotations/instances_train2017.json": 1, "annotations/instances_val2017.json": 1},
    ),
    Archive(
        "panoptic",
        "annotations/panoptic_annotations_trainval2017.zip",
        {
            "annotations/panoptic_train2017.json": 1,
            "annotations/panoptic_val2017.json": 1,
            "panoptic_train2017": TRAIN,
            "panoptic_val2017": VAL,
        },
    ),
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/coco"), help="folder to fill (default: %(default)s)")
    parser.add_argument("--only", choices=["images", "instances", "panoptic"], help="one part (default: all three)")
    parser.add_argument("--url", default="http://images.cocodataset.org", help="where the archives lie")
    parser.add_argument("--keep", action="store_true", help="keep the archives after unpacking")
    args = parser.parse_args(arguments)
    try:
        for archive in ARCHIVES:
            if args.only in (None, archive.part):
                prepare(archive, args.root, args.url, args.keep)
    except OSError as error:  # unreachable, broken off, disk full
        sys.exit(f"error: {error}")


def prepare(archive: Archive, root: Path, url: str, keep: bool) -> None:
    """Fetch, unpack and check one archive, unless all it makes is there."""
    wanted = ", ".join(archive.makes)
    if not lacking(archive, root):
        print(f"there already: {wanted}")
        return
    file = root / "archives" / Path(archive.path).name
    if not file.exists():
        download(f"{url}/{archive.path}", file)
    print(f"unpacking {file}")
    unpack(file, root, set(archive.makes))
    if left := lacking(archive, root):
        raise OSError(f"{file} is not as expected, after unpacking: {'; '.join(left)}. Remove it and run again.")
    if not keep:
        file.unlink()
    print(f"done: {wanted}")


def lacking(archive: Archive, root: Path) -> list[str]:
    """What of an archive's content is not there, in words."""
    missing = []
    for name, expected in archive.makes.items():
        path = root / name
        count = sum(1 for _ in path.iterdir()) if path.is_dir() else int(path.exists())
        if count != expected:
            missing.append(f"{path} has {count} files, expected {expected}" if path.is_dir() else f"{path} is missing")
    return missing


def download(url: str, file: Path) -> None:
    """Fetch a file, going on where an earlier attempt broke off (file.part)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60) as answer:
            total = int(answer.headers["Content-Length"])
        if not part.exists() or part.stat().st_size != total:
            fetch(url, part, total)
    except URLError as error:
        raise OSError(
            f"{url} cannot be fetched ({error.reason}). Check the network and run again, or put {file.name} into "
            f"{file.parent.absolute()} by other means."
        ) from error
    if part.stat().st_size != total:
        raise OSError(f"{url} broke off at {part.stat().st_size} of {total} bytes; run again to go on from there")
    part.rename(file)


def fetch(url: str, part: Path, total: int) -> None:
    """Append what part still lacks of a file of `total` bytes."""
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if 0 < there < total else {})
    columns = (TextColumn(part.stem), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with urllib.request.urlopen(request, timeout=60) as answer, Progress(*columns) as progress:
        resumed = answer.status == 206  # a server that knows no ranges sends all of it, with status 200
        task = progress.add_task(url, total=total, completed=there if resumed else 0)
        with part.open("ab" if resumed else "wb") as stream:
            while block := answer.read(1 << 20):
                stream.write(block)
                progress.advance(task, len(block))


def unpack(file: Path, root: Path, wanted: set[str]) -> None:
    """Take the wanted files, and those in wanted folders, out of a zip and out of the zips within it."""
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                path = Path(member.filename)
                if member.filename in wanted or (str(path.parent) in wanted and not member.is_dir()):
                    target = root / path
                    if not target.exists() or target.stat().st_size != member.file_size:
                        archive.extract(member, root)
                elif path.suffix == ".zip" and path.stem in wanted:
                    inner = file.with_name(path.name)
                    with archive.open(member) as source, inner.open("wb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
                    unpack(inner, root, wanted)
                    inner.unlink()
    except zipfile.BadZipFile as error:
        raise OSError(f"{file} is not a whole zip archive ({error}). Remove it and run again.") from error


if __name__ == "__main__":
    main()
