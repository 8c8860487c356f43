"""Read images from files, folders, glob patterns and videos; each has a unique name."""

import os
import re
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from src.data.formats.images import MAX_PIXELS, read_image
from src.prediction.video import frames, num_frames

IMAGE_SUFFIXES = (
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
MAX_NAME_BYTES = 200
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


class Shot(NamedTuple):
    """Where an image comes from."""

    name: str  # unique, of its output files; VIDEO/000001 for a frame
    image_id: int
    file: Path
    video: str | None = None  # name of the video, for a frame


class Inputs:
    """Iterate over the images of several sources; unreadable files are skipped and listed in `broken`.

    Image ids are unique: the numbers in the file names, as in COCO, if all files have distinct ones and none is a
    video; else positions, from 1.

    Args:
        sources: files of any name, shell patterns, and folders, where images and videos are recognised by suffix.
        max_photo_pixels: larger images are listed as unreadable.
        setting: the name of the setting in error messages.

    Raises:
        FileNotFoundError: a source is empty or does not exist.
        ValueError: there are videos, but PyAV is not installed.
    """

    def __init__(self, sources: Sequence[str], max_photo_pixels: int = MAX_PIXELS, setting: str = "photos"):
        self.most = max_photo_pixels
        files = [file for source in sources for file in files_of(source, setting)]
        self.files = list({file.resolve(): file for file in files}.values())  # each once
        self.broken: list[str] = []  # error messages of unreadable files
        stems = [file.stem for file in self.files]
        self.names = distinct([shortened(stem) for stem in stems])
        self.videos = {file: num_frames(file) for file in self.files if is_video(file)}
        numbered = not self.videos and all(re.fullmatch("[0-9]{1,18}", stem) for stem in stems)
        numbers = [int(stem) for stem in stems] if numbered else []
        self.ids_by_name = numbers if len(set(numbers)) == len(stems) else None  # None: ids are positions

    def __len__(self) -> int:
        """The number of images; videos may state a wrong number of frames."""
        return len(self.files) - len(self.videos) + sum(self.videos.values())

    def __iter__(self) -> Iterator[tuple[Shot, Tensor]]:
        """Yield each image (3, H, W) uint8 RGB and where it comes from."""
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
                    image_id = self.ids_by_name[number] if self.ids_by_name else place
                    yield Shot(name, image_id, file), photo
            except (ValueError, OSError) as error:
                self.broken.append(str(error))


def files_of(source: str, setting: str = "photos") -> list[Path]:
    """Return the sorted files of a path or pattern. Raises FileNotFoundError naming the setting if there are none."""
    path = Path(source)
    if path.is_dir():
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES and file.is_file()
        ]
        if not files:
            raise FileNotFoundError(f"{setting}={source}: no image or video in this folder")
        return files
    if path.exists():
        return [path]
    matches = sorted(glob(source, recursive=True)) if has_magic(source) else []
    if not matches:
        what = "nothing matches this pattern" if has_magic(source) else "no such file or folder"
        raise FileNotFoundError(f"{setting}={source}: {what}, looked in {Path.cwd()}")
    return [file for match in matches for file in files_of(match, setting)]


def is_video(file: Path) -> bool:
    return file.suffix.lower() in VIDEO_SUFFIXES


def distinct(names: Sequence[str]) -> list[str]:
    """Make names unique, ignoring case, by appending numbers: cat, cat_2."""
    taken: set[str] = set()
    next_of: dict[str, int] = {}  # the next number to try for each name
    result = []
    for name in names:
        new, number = name, next_of.get(name.casefold(), 2)
        while new.casefold() in taken:
            new, number = f"{name}_{number}", number + 1
        next_of[name.casefold()] = number
        taken.add(new.casefold())
        result.append(new)
    return result


def shortened(name: str) -> str:
    """Shorten a name to leave room for suffixes within the 255 bytes of a file name."""
    content = os.fsencode(name)
    return name if len(content) <= MAX_NAME_BYTES else content[:MAX_NAME_BYTES].decode(errors="ignore")
