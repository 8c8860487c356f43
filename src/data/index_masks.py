"""Semantic masks: PNGs with one value per pixel, which a class list maps to classes.

Letters: H x W pixels, N segments of one image.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from src.data.formats.annotations import TextRows
from src.data.formats.categories import LARGEST, read_categories
from src.data.formats.image_names import names_below
from src.data.formats.images import image_size, open_image, other_size
from src.data.image_folder import ImageFolder
from src.data.problems import DataError, Kind, Problem, Report, fail, refuse
from src.data.targets import Category, Truth

ONE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16B")  # Pillow's modes; values of P are places in its palette


class IndexMasks(ImageFolder):
    """Image files and their masks, matched by path: relative to their folders and without suffix, paths are equal.

    Each class in a mask is one segment of stuff. Pixels with values in `ignore` are void: not trained on, not scored.
    Suffixes may be longer than a file extension: `_leftImg8bit.png`.

    Files without a counterpart go to `report`, and are left out if it returns. Raises FileNotFoundError or ValueError
    if something is missing; reading a mask raises DataError for values neither in the class list nor ignored.
    """

    def __init__(
        self,
        image_folder: str | Path,
        mask_folder: str | Path,
        classes: str,  # a file, or the name of a benchmark: see read_categories
        ignore: Sequence[int],
        image_suffixes: Sequence[str],
        mask_suffix: str,
        report: Report = refuse,
    ) -> None:
        super().__init__(image_folder)
        self.mask_folder = self._existing(mask_folder, "mask folder")
        self.place = str(mask_folder)
        self.class_list = classes
        listed = read_categories(classes)
        for category in listed:
            if category.id in ignore:
                raise ValueError(
                    f"ignore={list(ignore)}: {category.id} is {category.name} in {classes}, expected values that are "
                    f"not a class, for example data.val.ignore=[{LARGEST}]"
                )
        self.categories = self._learnt(listed)
        self.label_of = {category.id: label for label, category in enumerate(self.categories)}
        self.ignored = sorted({*ignore} | {category.id for category in listed} - self.label_of.keys())

        images, masks = files_below(self.image_folder, image_suffixes), files_below(self.mask_folder, [mask_suffix])
        if not images:
            raise ValueError(f"{self.image_folder}: no image file in it, expected names that end in {image_suffixes}")
        report(unmatched(self.image_folder, images, masks, f"mask in {self.mask_folder}"))
        report(unmatched(self.mask_folder, masks, images, f"image in {self.image_folder}"))
        keys = [key for key in images if key in masks]
        self.image_names = TextRows(images[key] for key in keys)
        self.mask_names = TextRows(masks[key] for key in keys)

    def problems_of(self, index: int) -> Iterator[Problem]:
        """Problems that the headers of the image and mask file show."""
        file = self._mask_file(index)
        try:
            yield from other_size(file, image_size(file), self._size(index), "as its image")
        except DataError as error:
            yield from error.problems

    def _mask_file(self, index: int) -> Path:
        return self.mask_folder / self.mask_names[index]

    def _learnt(self, classes: list[Category]) -> list[Category]:
        """The classes to learn, with `isthing` set."""
        return [category._replace(isthing=False) for category in classes]

    def _class_of(self, value: int) -> tuple[int, bool]:
        """The class id of a mask value, and whether the segment is a crowd."""
        return value, False

    def _truth(self, index: int, size: tuple[int, int]) -> Truth:
        truth = self.annotated(index)
        height, width = truth.segments.shape[1:]
        refuse(other_size(self._mask_file(index), (height, width), size, "as its image"))
        return truth

    def annotated(self, index: int) -> Truth:
        """One segment for each value of a class, from the mask alone. Raises DataError for values of no class."""
        file = self._mask_file(index)
        values = read_values(file)
        counts = np.bincount(values.ravel())
        classes = {value: self._class_of(value) for value in np.flatnonzero(counts).tolist()}
        known = self.label_of.keys() | {*self.ignored}
        unknown = [value for value, (id_, _) in classes.items() if id_ not in known]
        if unknown:
            ids = f"{len(self.label_of)} from {min(self.label_of)} to {max(self.label_of)}"
            expected = f"those of the class list {self.class_list} ({ids}) or of data.val.ignore, {self.ignored}"
            fail(Kind.CATEGORY, file, f"has the values {unknown[:5]}", expected)
        segments = [value for value, (id_, _) in classes.items() if id_ in self.label_of]
        numbers = np.zeros(len(counts), np.int32)
        numbers[segments] = np.arange(1, len(segments) + 1)
        return Truth(
            torch.from_numpy(numbers.take(values)[None]),
            torch.tensor([self.label_of[classes[value][0]] for value in segments], dtype=torch.int64),
            torch.tensor([classes[value][1] for value in segments], dtype=torch.bool),
            torch.from_numpy(counts[segments].astype(np.float32)),
        )


def files_below(folder: Path, suffixes: Sequence[str]) -> dict[str, str]:
    """Sorted names of the files below a folder that end in one of the suffixes, by name without suffix."""
    by_key: dict[str, str] = {}
    for path in names_below(folder):
        suffix = next((suffix for suffix in suffixes if path.lower().endswith(suffix.lower())), None)
        if suffix is None or Path(path).name.startswith("."):  # macOS leaves such files
            continue
        key = path[: -len(suffix)]
        if key in by_key:
            raise ValueError(f"{folder / path} and {folder / by_key[key]}: expected one file of that name, not two")
        by_key[key] = path
    return dict(sorted(by_key.items()))


def unmatched(folder: Path, names: Mapping[str, str], others: Collection[str], lacking: str) -> Iterator[Problem]:
    """Report files without a counterpart."""
    for key, name in names.items():
        if key not in others:
            file = str((folder / name).absolute())
            yield Problem(Kind.MISSING, file, "", f"has no {lacking}", "one of the same name")


def read_values(file: Path) -> np.ndarray:
    """The values (H, W) of a mask, unsigned. Raises DataError for an image in colours."""
    mask = open_image(file)
    if mask.mode not in ONE_CHANNEL:
        fail(Kind.UNREADABLE, file, f"is an image in {mask.mode}", "one channel whose values are classes")
    values = np.asarray(mask)
    if mask.mode == "I" and not 0 <= values.min() <= values.max() <= LARGEST:
        fail(Kind.CATEGORY, file, f"has values from {values.min()} to {values.max()}", f"0 to {LARGEST}")
    return values.astype(np.uint16 if mask.mode.startswith("I") else np.uint8)
