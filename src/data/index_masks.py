"""Semantic masks: PNGs with one value a pixel, which a class list explains. Benchmarks and data of one's own.

Letters: H x W pixels, N segments of one image.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from src.data.annotations import ByteRows
from src.data.categories import LARGEST, read_categories
from src.data.files import SOURCE, found
from src.data.photos import read_photo, read_picture
from src.data.scenes import Scenes
from src.data.targets import Category, Sample, Truth

ONE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16B")  # Pillow's modes; values of P are places in its palette


class IndexMasks(Scenes):
    """Pictures and their masks, matched by path: what stands below a folder, without suffix, is the same in both.

    Each class that shows is one segment, and stuff. Pixels of values in `ignore` are nothing: they are not trained on
    and not scored. Suffixes may hold more than a dot: `_leftImg8bit.png`.

    Raises FileNotFoundError or ValueError at once for what is missing or without its counterpart, and when a mask is
    read, naming it, for values that are neither in the class list nor ignored.
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
    ) -> None:
        self.image_folder = found(image_folder, "image folder", self.source)
        self.mask_folder = found(mask_folder, "mask folder", self.source)
        listed = read_categories(classes)
        if both := [category for category in listed if category.id in ignore]:
            raise ValueError(
                f"ignore={list(ignore)}: {both[0].id} is {both[0].name} in {classes}, expected other values"
            )
        self.class_list = classes
        self.categories = self._chosen(listed)
        self.label_of = {category.id: label for label, category in enumerate(self.categories)}
        self.ignored = {*ignore} | {category.id for category in listed} - self.label_of.keys()
        images, masks = files(self.image_folder, image_suffixes), files(self.mask_folder, [mask_suffix])
        if not images:
            raise ValueError(f"{self.image_folder}: no picture in it, expected names that end in {image_suffixes}")
        refuse_alone([images[key] for key in images if key not in masks], f"mask in {self.mask_folder}")
        refuse_alone([masks[key] for key in masks if key not in images], f"picture in {self.image_folder}")
        self.image_names = ByteRows(str(images[key]).encode() for key in images)  # flat, as in Annotations
        self.mask_names = ByteRows(str(masks[key]).encode() for key in images)
        self.num_images = len(images)

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> Sample:
        image_file, mask_file = (Path(names[index].decode()) for names in (self.image_names, self.mask_names))
        image = read_photo(image_file)
        values = read_values(mask_file)
        if values.shape != image.shape[1:]:
            (h, w), (height, width) = values.shape, image.shape[1:]
            raise ValueError(f"{mask_file}: is {h} x {w} (height x width), but {image_file} is {height} x {width}")
        return Sample(image, self._truth(values, mask_file), index, image_file.name)

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
        if unknown := [value for value, (id_, _) in classes.items() if id_ not in self.label_of.keys() | self.ignored]:
            raise ValueError(
                f"{file}: has the values {unknown[:5]}, expected those of the class list {self.class_list} "
                f"({len(self.label_of)} from {min(self.label_of)} to {max(self.label_of)}) or of ignore, "
                f"{sorted(self.ignored)}"
            )
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


def refuse_alone(alone: Sequence[Path], lacking: str) -> None:
    """Refuse files that lack their counterpart."""
    if alone:
        more = f" (and {len(alone) - 1} more)" if alone[1:] else ""
        raise FileNotFoundError(f"{alone[0].absolute()}: has no {lacking}, expected one of the same name{more}")


def read_values(file: Path) -> np.ndarray:
    """The values (H, W) of a mask, unsigned. Raises ValueError for a picture in colours."""
    picture = read_picture(file)
    if picture.mode not in ONE_CHANNEL:
        raise ValueError(f"{file}: is a picture in {picture.mode}, expected one channel whose values are classes")
    values = np.asarray(picture)
    if picture.mode == "I" and not 0 <= values.min() <= values.max() <= LARGEST:
        raise ValueError(f"{file}: has values from {values.min()} to {values.max()}, expected 0 to {LARGEST}")
    return values.astype(np.uint16 if picture.mode.startswith("I") else np.uint8)
