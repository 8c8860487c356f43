"""Photos out of files, folders, globs and videos, each under a name that no other has."""

import os
import re
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from src.data.formats.images import MAX_PIXELS, read_image
from src.prediction.video import frames, num_frames

PHOTOS = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".webp",
    ".jp2",
    ".avif",
    ".ppm",
    ".pgm",
    ".pbm",
)
LONGEST = 200  # bytes of a name
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


class Shot(NamedTuple):
    """Where a photo comes from."""

    name: str  # of what is made of it; no other has it; VIDEO/000001 of a frame
    image_id: int
    file: Path
    video: str | None = None  # the name of the video that it is a frame of


class Inputs:
    """Every photo that some paths or patterns name, one after the other; what cannot be read is left out and told.

    An image's id is the number that its file is called, as in COCO, if that is so of all files and none is a video,
    else its place: no two have the same.

    Args:
        sources: files of any name, patterns as of a shell, and folders, in which files are told by their endings.
        max_photo_pixels: a larger picture is not read.

    Raises:
        FileNotFoundError: a source with nothing in it.
        ValueError: videos, and nothing that reads them.
    """

    def __init__(self, sources: Sequence[str], max_photo_pixels: int = MAX_PIXELS):
        self.most = max_photo_pixels
        files = [file for source in sources for file in found(source)]
        self.files = list({file.resolve(): file for file in files}.values())  # each once
        self.broken: list[str] = []  # why, of every file that could not be read
        stems = [file.stem for file in self.files]
        numbered = all(re.fullmatch("[0-9]{1,18}", stem) for stem in stems) and not any(map(is_video, self.files))
        numbered = numbered and len({*map(int, stems)}) == len(stems)
        self.first_ids = [int(stem) for stem in stems] if numbered else None
        self.names = distinct([*map(cut, stems)])
        self.videos = {file: num_frames(file) for file in self.files if is_video(file)}

    def __len__(self) -> int:
        """How many photos there are, as far as videos tell."""
        return len(self.files) - len(self.videos) + sum(self.videos.values())

    def __iter__(self) -> Iterator[tuple[Shot, Tensor]]:
        """Every photo (3, H, W) uint8 RGB and where it comes from."""
        self.broken = []
        place = 0
        for number, (file, name) in enumerate(zip(self.files, self.names, strict=True)):
            try:
                if file in self.videos:
                    for index, frame in enumerate(frames(file), 1):
                        place += 1
                        yield Shot(f"{name}/{index:06d}", place, file, name), frame
                else:
                    photo = read_image(file, self.most)
                    place += 1
                    yield Shot(name, self.first_ids[number] if self.first_ids else place, file), photo
            except (ValueError, OSError) as error:
                self.broken.append(str(error))


def found(source: str) -> list[Path]:
    """The files that a path or pattern means, in order. Raises FileNotFoundError where there are none."""
    path = Path(source)
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in PHOTOS + VIDEOS and file.is_file()]
        if not files:
            raise FileNotFoundError(f"photos={source}: no image or video in this folder")
        return files
    if path.exists():
        return [path]
    matches = sorted(glob(source, recursive=True)) if has_magic(source) else []
    if not matches:
        what = "nothing matches this pattern" if has_magic(source) else "no such file or folder"
        raise FileNotFoundError(f"photos={source}: {what}, looked in {Path.cwd()}")
    return [file for match in matches for file in found(match)]


def is_video(file: Path) -> bool:
    """Whether it is called like one."""
    return file.suffix.lower() in VIDEOS


def distinct(names: Sequence[str]) -> list[str]:
    """Names, a number added to those that came up before, whatever their case: cat, cat_2."""
    taken: set[str] = set()
    next_of: dict[str, int] = {}  # the number to try, of names that came up before
    result = []
    for name in names:
        new, number = name, next_of.get(name.casefold(), 2)
        while new.casefold() in taken:
            new, number = f"{name}_{number}", number + 1
        next_of[name.casefold()] = number
        taken.add(new.casefold())
        result.append(new)
    return result


def cut(name: str) -> str:
    """A name, short enough to have more added to it where names of files end after 255 bytes."""
    content = os.fsencode(name)
    return name if len(content) <= LONGEST else content[:LONGEST].decode(errors="ignore")
