"""Semantic masks: PNGs with one value a pixel, which a class list explains. Benchmarks and data of one's own.

Letters: H x W pixels, N segments of one image.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from src.data.files import SOURCE, found
from src.data.formats.annotations import ByteRows
from src.data.formats.categories import LARGEST, read_categories
from src.data.formats.image_files import header_size, other_size, read_picture
from src.data.formats.images import read_photo
from src.data.problems import DataError, Kind, Problem, Report, refuse
from src.data.scenes import Identity, Scenes
from src.data.targets import Category, Sample, Truth

ONE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16B")  # Pillow's modes; values of P are places in its palette


class IndexMasks(Scenes):
    """Pictures and their masks, matched by path: what stands below a folder, without suffix, is the same in both.

    Each class that shows is one segment, and stuff. Pixels of values in `ignore` are nothing: they are not trained on
    and not scored. Suffixes may hold more than a dot: `_leftImg8bit.png`.

    What is without its counterpart goes to `report` at once, and is left out where that returns. Raises
    FileNotFoundError or ValueError for what is missing, and DataError, when a mask is read, for values that are neither
    in the class list nor ignored.
    """

    source = SOURCE

    def __init__(
        self,
        image_folder: str | Path,
        mask_folder: str | Path,
        classes: str,  # a file, or the name of a list that is here: see read_categories
        ignore: Sequence[int],
        image_suffixes: Sequence[str],
        mask_suffix: str,
        report: Report = refuse,
    ) -> None:
        self.image_folder = found(image_folder, "image folder", self.source)
        self.mask_folder = found(mask_folder, "mask folder", self.source)
        listed = read_categories(classes)
        if both := [category for category in listed if category.id in ignore]:
            raise ValueError(
                f"ignore={list(ignore)}: {both[0].id} is {both[0].name} in {classes}, expected values that are no "
                f"class, for example data.val.ignore=[{LARGEST}]"
            )
        self.class_list = classes
        self.categories = self._chosen(listed)
        self.label_of = {category.id: label for label, category in enumerate(self.categories)}
        self.ignored = sorted({*ignore} | {category.id for category in listed} - self.label_of.keys())
        self.place = str(mask_folder)
        images, masks = files(self.image_folder, image_suffixes), files(self.mask_folder, [mask_suffix])
        if not images:
            raise ValueError(f"{self.image_folder}: no picture in it, expected names that end in {image_suffixes}")
        report(alone(images, masks, f"mask in {self.mask_folder}"))
        report(alone(masks, images, f"picture in {self.image_folder}"))
        pairs = [(images[key], masks[key]) for key in images if key in masks]
        self.image_names = ByteRows(os.fsencode(image) for image, _ in pairs)  # flat, as in Annotations
        self.mask_names = ByteRows(os.fsencode(mask) for _, mask in pairs)

    def __len__(self) -> int:
        return len(self.image_names)

    def __getitem__(self, index: int) -> Sample:
        image_file, mask_file = self._files(index)
        image, values = read_photo(image_file), read_values(mask_file)
        refuse(other_size(mask_file, values.shape, (image.shape[1], image.shape[2]), "as its image"))
        return Sample(image, self._truth(values, mask_file), index, image_file.name)

    def annotated(self, index: int) -> Truth:
        """What is in an image, from its mask alone. Raises DataError for values of no class."""
        file = self._files(index)[1]
        return self._truth(read_values(file), file)

    def identified(self, index: int) -> Identity:
        """Which image it is. Raises DataError for a picture that cannot be read."""
        file = self._files(index)[0]
        return Identity(index, file.name, header_size(file))

    def flaws(self, index: int) -> Iterator[Problem]:
        """What is wrong with an image, as far as the headers of its two files tell."""
        image_file, mask_file = self._files(index)
        try:
            yield from other_size(mask_file, header_size(mask_file), header_size(image_file), "as its image")
        except DataError as error:
            yield from error.problems

    def _files(self, index: int) -> tuple[Path, Path]:
        """An image and its mask."""
        return Path(os.fsdecode(self.image_names[index])), Path(os.fsdecode(self.mask_names[index]))

    def _chosen(self, classes: list[Category]) -> list[Category]:
        """What of a class list is learnt, and whether as things."""
        return [category._replace(isthing=False) for category in classes]

    def _class_of(self, value: int) -> tuple[int, bool]:
        """The id in the class list that a value of a mask stands for, and whether it is of a crowd."""
        return value, False

    def _truth(self, values: np.ndarray, file: Path) -> Truth:
        """A segment for each value (H, W) of a class."""
        counts = np.bincount(values.ravel())
        present = np.flatnonzero(counts).tolist()
        classes = {value: self._class_of(value) for value in present}
        if unknown := [
            value for value, (id_, _) in classes.items() if id_ not in self.label_of.keys() | {*self.ignored}
        ]:
            ids = f"{len(self.label_of)} from {min(self.label_of)} to {max(self.label_of)}"
            known = f"those of the class list {self.class_list} ({ids}) or of ignore, {self.ignored}"
            refuse([Problem(Kind.CATEGORY, str(file), "", f"has the values {unknown[:5]}", known)])
        kept = [value for value, (id_, _) in classes.items() if id_ in self.label_of]
        numbers = np.zeros(len(counts), np.int32)
        numbers[kept] = np.arange(1, len(kept) + 1)
        return Truth(
            torch.from_numpy(numbers.take(values)[None]),
            torch.tensor([self.label_of[classes[value][0]] for value in kept], dtype=torch.int64),
            torch.tensor([classes[value][1] for value in kept], dtype=torch.bool),
            torch.from_numpy(counts[kept].astype(np.float32)),
        )


def files(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Files below a folder whose names end in one of the suffixes, in order, by their path without it."""
    found_files: dict[str, Path] = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            suffix = next((suffix for suffix in suffixes if name.lower().endswith(suffix.lower())), None)
            if suffix is None or name.startswith("."):  # what macOS leaves about
                continue
            file = Path(parent) / name
            key = str(file.relative_to(folder))[: -len(suffix)]
            if key in found_files:
                raise ValueError(f"{file} and {found_files[key]}: expected one file of that name, not two")
            found_files[key] = file
    return dict(sorted(found_files.items()))


def alone(files: Mapping[str, Path], others: Collection[str], lacking: str) -> Iterator[Problem]:
    """Files that lack their counterpart."""
    for key, file in files.items():
        if key not in others:
            yield Problem(Kind.MISSING, str(file.absolute()), "", f"has no {lacking}", "one of the same name")


def read_values(file: Path) -> np.ndarray:
    """The values (H, W) of a mask, unsigned. Raises DataError for a picture in colours."""
    picture = read_picture(file)
    if picture.mode not in ONE_CHANNEL:
        said = (f"is a picture in {picture.mode}", "one channel whose values are classes")
        refuse([Problem(Kind.UNREADABLE, str(file), "", *said)])
    values = np.asarray(picture)
    if picture.mode == "I" and not 0 <= values.min() <= values.max() <= LARGEST:
        said = (f"has values from {values.min()} to {values.max()}", f"0 to {LARGEST}")
        refuse([Problem(Kind.CATEGORY, str(file), "", *said)])
    return values.astype(np.uint16 if picture.mode.startswith("I") else np.uint8)
