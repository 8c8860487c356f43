"""Readers of COCO's two layouts, panoptic and instances, for COCO itself and your own data.

Letters: H x W pixels, N segments of one image, L layers of its map.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.data.formats.annotations import Annotations, Objects, TextRows
from src.data.formats.boxes import problems_of_boxes
from src.data.formats.coco_file import Layout
from src.data.formats.coco_masks import outlines_of, problems_of_masks
from src.data.formats.image_names import locate
from src.data.formats.images import image_size, open_image, other_size
from src.data.image_folder import ImageFolder
from src.data.problems import DataError, Kind, Problem, Report, fail, first_few, refuse
from src.data.targets import Truth, pack


class Coco(ImageFolder):
    """Base class of both layouts: images in a folder, annotations in a JSON file."""

    layout: Layout

    def __init__(
        self,
        image_folder: str | Path,
        annotation_file: str | Path,
        keep_empty: bool = True,
        report: Report = refuse,  # receives the problems found before an image is read
        masks: bool = True,  # whether objects need masks, or a box is enough
    ) -> None:
        super().__init__(image_folder)
        file = self._existing(annotation_file, "annotation file")
        self.annotations, self.masks = Annotations(file, self.layout, keep_empty, report, masks), masks
        self.categories, self.place = self.annotations.categories, str(file)
        if not len(self.annotations):
            expected = "images" if keep_empty else "images with an object that is not a crowd"
            fail(Kind.REFUSED, file, "has nothing to read", expected)
        names = [self._image_name(name) for name in self.annotations.image_names]
        self.image_names = TextRows(locate(self.image_folder, names, "image_folder", report))

    def image_id(self, index: int) -> int:
        """The id of an image in the annotation file; its index if ids there are names."""
        return int(self.annotations.image_ids[index])

    def described(self, index: int) -> Objects:
        """The objects of an image in the annotation file."""
        return self.annotations.of(index)

    def problems_of(self, index: int) -> Iterator[Problem]:
        """Problems that the annotation file and the headers of the image and mask file show."""
        size = self.annotations.size_of(index)
        try:
            size = super()._size(index)
            yield from self._other_size(index, size)
        except DataError as error:
            yield from error.problems
        if size is not None:
            yield from self._mask_problems(index, size)
            yield from self._box_problems(index, size)
        if not len(self.described(index).ids):
            where = f"image {self.image_id(index)}"
            yield Problem(Kind.BARE, str(self.annotations.file), where, "has no object", "one")

    def _image_name(self, name: str) -> str:
        """The name of a file relative to the image folder, from the name in the annotation file."""
        return name

    def _size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image, from the annotation file or else the header of the image file."""
        return self.annotations.size_of(index) or super()._size(index)

    def _other_size(self, index: int, size: tuple[int, int]) -> Iterator[Problem]:
        """Report an image file whose size differs from that in the annotation file."""
        stated = self.annotations.size_of(index) or size
        return other_size(self._image_file(index), size, stated, f"as {self.annotations.file} says")

    def _truth(self, index: int, size: tuple[int, int]) -> Truth:
        refuse(self._other_size(index, size))
        refuse(self._box_problems(index, size))
        segments, objects = self._segments(index, size), self.annotations.of(index)
        areas = objects.areas
        if not (areas > 0).all():  # NaN, or 0: count the pixels
            counted = np.bincount(segments.ravel(), minlength=len(areas) + 1)[1:]
            areas = np.where(areas > 0, areas, counted).astype(np.float32)
        columns = (torch.from_numpy(column.copy()) for column in (objects.labels, objects.crowd, areas))
        truth = Truth(torch.from_numpy(segments), *columns)
        return truth._replace(annotated_boxes=self._boxes(index, truth))

    def _boxes(self, index: int, truth: Truth) -> Tensor | None:
        """The annotated boxes of an image inside it, and the extents of other segments; None if there are none."""
        boxes = torch.from_numpy(self.annotations.boxes_of(index).copy())
        known = boxes.isfinite().all(1, keepdim=True)
        if not known.any():
            return None
        height, width = truth.segments.shape[-2:]
        boxes = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))
        return boxes if known.all() else boxes.where(known, truth.boxes())

    def _box_problems(self, index: int, size: tuple[int, int]) -> Iterator[Problem]:
        """Problems of the places of the boxes of an image of this size, if they are what is learnt."""
        if not self.masks:
            objects, boxes = self.described(index), self.annotations.boxes_of(index)
            yield from problems_of_boxes(objects.ids, boxes, size, self.annotations.file)

    def _mask_problems(self, index: int, size: tuple[int, int]) -> Iterator[Problem]:
        """Problems of the masks of an image of this size, without decoding mask files."""
        raise NotImplementedError

    def _segments(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """The segments of an image of this size, numbered from 1 in the order of the file: (L, H, W) int32."""
        raise NotImplementedError


class CocoPanoptic(Coco):
    """Things and stuff that do not overlap; masks are PNGs whose colours are segment ids.

    `keep_empty=False` leaves out images without a segment, or with crowds only, as Mask2Former does in training.
    """

    layout = "panoptic"

    def __init__(
        self,
        image_folder: str | Path,
        annotation_file: str | Path,
        mask_folder: str | Path,
        keep_empty: bool = True,
        covered: bool = False,  # whether segments without a pixel may be listed, as ADE20K lists stuff under things
        report: Report = refuse,
    ) -> None:
        super().__init__(image_folder, annotation_file, keep_empty, report)
        self.mask_folder, self.covered = self._existing(mask_folder, "mask folder"), covered
        names = list(self.annotations.mask_names)
        self.mask_names = TextRows(locate(self.mask_folder, names, "mask_folder", report, suffix=".png"))

    def _mask_file(self, index: int) -> Path | None:
        """The mask file of an image; None if the image is listed but not annotated."""
        name = self.mask_names[index]
        return self.mask_folder / name if name else None

    def _mask_problems(self, index: int, size: tuple[int, int]) -> Iterator[Problem]:
        file = self._mask_file(index)
        if file is not None:
            try:
                yield from other_size(file, image_size(file), size, "as its image")
            except DataError as error:
                yield from error.problems

    def _segments(self, index: int, size: tuple[int, int]) -> np.ndarray:
        file = self._mask_file(index)
        if file is None:
            return np.zeros((1, *size), np.int32)
        mask = open_image(file)
        refuse(other_size(file, mask.size[::-1], size, "as its image"))
        colors = np.asarray(mask.convert("RGB").convert("RGBA"))
        pixels = (colors.view("<u4") & 0xFFFFFF).ravel()  # R + 256 G + 65536 B

        # Ids come in runs along the rows: looking up thousands of runs is many times faster than all pixels.
        starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1])
        values, places = np.unique(pixels[starts], return_inverse=True)
        numbers = self._numbers(values.tolist(), self.annotations.of(index).ids.tolist(), file, mask)
        runs = np.diff(starts, append=len(pixels))
        return np.repeat(numbers[places], runs).reshape(1, *size)

    def _numbers(self, values: list[int], ids: list[int], file: Path, mask: Image.Image) -> np.ndarray:
        """The place of each value in ids, from 1; 0, void, stays 0. Raises DataError for other values."""
        drawn, listed = set(values) - {0}, set(ids)
        if drawn - listed and len(mask.getbands()) == 1 and mask.mode != "P":  # P: a palette of colours
            found = f"is an image in one channel ({mask.mode})"
            fail(Kind.MASK_ONLY, file, found, "colours: a segment's id is R + 256 G + 65536 B")
        refuse(self._other_ids(drawn, listed, file))
        number_of = {0: 0} | {id_: number for number, id_ in enumerate(ids, 1)}
        return np.array([number_of[value] for value in values], np.int32)

    def _other_ids(self, drawn: set[int], listed: set[int], file: Path) -> Iterator[Problem]:
        mask_only, json_only = sorted(drawn - listed), sorted(listed - drawn)
        if mask_only:
            where = f"segment {first_few(mask_only)}"
            yield Problem(Kind.MASK_ONLY, str(file), where, "is in the mask", "the ids of the annotation file")
        if json_only and not self.covered:
            where = f"segment {first_few(json_only)}"
            yield Problem(Kind.JSON_ONLY, str(file), where, "is not in the mask", "all ids of the annotation file")


class CocoInstances(Coco):
    """Objects that may overlap; masks are polygons or run lengths in the annotation file."""

    layout = "instances"

    def _mask_problems(self, index: int, size: tuple[int, int]) -> Iterator[Problem]:
        return problems_of_masks(self.annotations.of(index), outlines_of(self.annotations, index, size))

    def _segments(self, index: int, size: tuple[int, int]) -> np.ndarray:
        outlines = outlines_of(self.annotations, index, size)
        masks = np.zeros((len(outlines), *size), bool)
        for mask, outline in zip(masks, outlines, strict=True):
            mask[:] = outline.mask()
        return pack(masks)
