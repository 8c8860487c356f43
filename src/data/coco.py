"""COCO's two layouts, panoptic and instances, read from disk: COCO itself or data of one's own.

Letters: H x W pixels, N segments of one image, L layers of its map.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from src.data.files import SOURCE, found
from src.data.formats.annotations import LONE, Annotations, ByteRows, Objects
from src.data.formats.coco_file import Grouping, instances, panoptic
from src.data.formats.coco_masks import decode, outline_flaws
from src.data.formats.image_files import header_size, other_size, read_picture
from src.data.formats.image_names import locate
from src.data.formats.images import read_photo
from src.data.problems import DataError, Kind, Problem, Report, refuse, some
from src.data.scenes import Identity, Scenes
from src.data.targets import Sample, Truth, pack


class Coco(Scenes):
    """Images in a folder, annotations in a JSON file; what both layouts share."""

    layout: Grouping
    source = SOURCE

    def __init__(
        self,
        image_folder: str | Path,
        annotation_file: str | Path,
        keep_empty: bool = True,
        report: Report = refuse,  # what becomes of problems that show before a picture is read
    ) -> None:
        self.image_folder = found(image_folder, "image folder", self.source)
        file = found(annotation_file, "annotation file", self.source)
        self.annotations = Annotations(file, type(self).layout, keep_empty, report)
        self.categories, self.place = self.annotations.categories, str(file)
        if not len(self):
            wanted = "images" if keep_empty else "images with an object that is no crowd"
            refuse([Problem(Kind.REFUSED, str(file), "", "has nothing to read", wanted)])
        names = [self._image_name(name.decode(errors=LONE)) for name in self.annotations.image_names]
        self.image_names = located(self.image_folder, names, "image_folder", report)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Sample:
        file = self._image_file(index)
        image = read_photo(file)
        height, width = image.shape[-2:]
        refuse(self._other_size(index, (height, width)))
        segments = self._segments(index, height, width)
        return Sample(image, truth(segments, self.annotations.of(index)), self.image_id(index), file.name)

    def image_id(self, index: int) -> int:
        """The id of an image in the annotation file; its place there if ids are names."""
        return int(self.annotations.image_ids[index])

    def identified(self, index: int) -> Identity:
        """Which image it is. Raises DataError where only its picture tells the size, and cannot be read."""
        file, size = self._image_file(index), self._stated(index)
        return Identity(self.image_id(index), file.name, header_size(file) if 0 in size else size)

    def _image_name(self, name: str) -> str:
        """Where an image lies in the image folder, by its name in the annotation file."""
        return name

    def _image_file(self, index: int) -> Path:
        return self.image_folder / self.image_names[index].decode(errors=LONE)

    def described(self, index: int) -> Objects:
        """The objects of an image, as the annotation file has them."""
        return self.annotations.of(index)

    def flaws(self, index: int) -> Iterator[Problem]:
        """What is wrong with an image, as far as the annotation file and the headers of its pictures tell."""
        try:
            size = header_size(self._image_file(index))
        except DataError as error:
            yield from error.problems
            size = self._stated(index)
        else:
            yield from self._other_size(index, size)
        yield from self._mask_flaws(index, size)
        if not len(self.described(index).ids):
            yield Problem(
                Kind.BARE, str(self.annotations.file), f"image {self.image_id(index)}", "has no object", "one"
            )

    def _stated(self, index: int) -> tuple[int, int]:
        height, width = self.annotations.sizes[index].tolist()
        return height, width

    def _other_size(self, index: int, size: tuple[int, int]) -> Iterator[Problem]:
        stated = self._stated(index)
        if 0 not in stated:
            yield from other_size(self._image_file(index), size, stated, f"as {self.annotations.file} says")

    def _mask_flaws(self, index: int, size: tuple[int, int]) -> Iterator[Problem]:
        """The part of `flaws` that is about masks; size is the image's, 0 unknown."""
        raise NotImplementedError

    def _segments(self, index: int, height: int, width: int) -> np.ndarray:
        """The image's segments, numbered from 1 in the order of the file: (L, height, width) int32."""
        raise NotImplementedError


class CocoPanoptic(Coco):
    """Things and stuff that share out the pixels; masks are PNGs whose colours are segment ids.

    `keep_empty` false leaves out images without a segment, or with crowds only, as Mask2Former does in training.
    """

    layout = staticmethod(panoptic)

    def __init__(
        self,
        image_folder: str | Path,
        annotation_file: str | Path,
        mask_folder: str | Path,
        keep_empty: bool = True,
        covered: bool = False,  # whether segments may be listed that have no pixel: ADE20K's stuff under things
        report: Report = refuse,
    ) -> None:
        super().__init__(image_folder, annotation_file, keep_empty, report)
        self.mask_folder, self.covered = found(mask_folder, "mask folder", self.source), covered
        names = [name.decode(errors=LONE) for name in self.annotations.mask_names]
        self.mask_names = located(self.mask_folder, names, "mask_folder", report, suffix=".png")

    def _mask_file(self, index: int) -> Path | None:
        name = self.mask_names[index].decode(errors=LONE)
        return self.mask_folder / name if name else None

    def _mask_flaws(self, index: int, size: tuple[int, int]) -> Iterator[Problem]:
        file = self._mask_file(index)
        if file is not None and 0 not in size:
            try:
                yield from other_size(file, header_size(file), size, "as its image")
            except DataError as error:
                yield from error.problems

    def _segments(self, index: int, height: int, width: int) -> np.ndarray:
        file = self._mask_file(index)
        if file is None:  # the annotation file lists the image and says nothing about it
            return np.zeros((1, height, width), np.int32)
        picture = read_picture(file)
        refuse(other_size(file, picture.size[::-1], (height, width), "as its image"))
        colors = np.asarray(picture.convert("RGB").convert("RGBA"))
        pixels = (colors.view("<u4") & 0xFFFFFF).ravel()  # R + 256 G + 65536 B

        # Ids come in runs along the rows: looking up thousands of runs is many times faster than as many pixels.
        starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1])
        values, places = np.unique(pixels[starts], return_inverse=True)
        numbers = self._number(values, self.annotations.of(index).ids, file, picture)
        runs = np.diff(starts, append=len(pixels))
        return np.repeat(numbers[places], runs).reshape(1, height, width)

    def _number(self, values: np.ndarray, ids: np.ndarray, file: Path, picture: Image.Image) -> np.ndarray:
        """Place of each of the values in ids, from 1; 0, unlabelled, stays 0."""
        if is_grey(picture) and not set(values.tolist()) <= {0, *ids.tolist()}:
            said = (f"is a picture in one channel ({picture.mode})", "colours: a segment's id is R + 256 G + 65536 B")
            refuse([Problem(Kind.MASK_ONLY, str(file), "", *said)])
        number_of = {0: 0} | {id_: number for number, id_ in enumerate(ids.tolist(), 1)}
        refuse(self._other_ids(set(values.tolist()) - {0}, set(ids.tolist()), file))
        return np.array([number_of[value] for value in values.tolist()], np.int32)

    def _other_ids(self, drawn: set[int], listed: set[int], file: Path) -> Iterator[Problem]:
        hidden = set() if self.covered else listed - drawn
        for kind, ids, said, wanted in (
            (Kind.MASK_ONLY, drawn - listed, "is in the mask", "the ids of the annotation file"),
            (Kind.JSON_ONLY, hidden, "is not in the mask", "all ids of the annotation file"),
        ):
            if ids:
                yield Problem(kind, str(file), f"segment {some(sorted(ids))}", said, wanted)


class CocoInstances(Coco):
    """Objects that may overlap; masks are polygons or run lengths in the annotation file itself."""

    layout = staticmethod(instances)

    def _mask_flaws(self, index: int, size: tuple[int, int]) -> Iterator[Problem]:
        if 0 not in size:
            yield from outline_flaws(
                self.annotations.file, self.annotations.of(index), self.annotations.outlines_of(index), size
            )

    def _segments(self, index: int, height: int, width: int) -> np.ndarray:
        ids, outlines = self.annotations.of(index).ids, self.annotations.outlines_of(index)
        masks = np.zeros((len(ids), height, width), bool)
        for mask, id_, outline in zip(masks, ids.tolist(), outlines, strict=True):
            mask[:] = decode(self.annotations.file, id_, outline, (height, width))
        return pack(masks)


def is_grey(picture: Image.Image) -> bool:
    """Whether a picture has one channel, which is no palette of colours."""
    return len(picture.getbands()) == 1 and picture.mode != "P"


def located(folder: Path, names: list[str], setting: str, report: Report, suffix: str | None = None) -> ByteRows:
    """The names of the files that some names stand for (see `picture_names.locate`)."""
    found = locate(folder, names, f"data.train.{setting} or data.val.{setting}", report, suffix)
    return ByteRows(name.encode(errors=LONE) for name in found)


def truth(segments: np.ndarray, objects: Objects) -> Truth:
    """The record of one image; areas the file does not give, or gives as 0, are counted."""
    areas = objects.areas
    if not (areas > 0).all():  # NaN, or 0
        counted = np.bincount(segments.ravel(), minlength=len(areas) + 1)[1:]
        areas = np.where(areas > 0, areas, counted).astype(np.float32)
    columns = (torch.from_numpy(column.copy()) for column in (objects.labels, objects.crowd, areas))
    return Truth(torch.from_numpy(segments), *columns)
