"""Masks in COCO's instances files, polygons or run lengths (RLE): drawn, and checked without reading an image.

Letters: N objects of one image.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_utils

from src.data.formats.annotations import Annotations, Objects
from src.data.formats.boxes import misplaced, rectangle
from src.data.problems import DataError, Kind, Problem, refuse

Rle = dict[str, Any]  # size, (height, width), and counts
DUPLICATE = 0.9  # intersection over union from which two objects of a class count as one
FAR = 1e5  # pixels; pycocotools walks along an outline in small steps, and crashes if it cannot count them


class Outline(NamedTuple):
    """The outline of an annotation, and the size of its image."""

    file: Path
    id: int  # of the annotation
    shape: list[list[float]] | Rle | None  # polygons, x, y, x, y ...; None: has none, which is reported on reading
    size: tuple[int, int]  # height, width
    box: np.ndarray | None = None  # left, top, right, bottom; drawn if there is no shape

    @property
    def is_drawn(self) -> bool:
        return self.shape is not None or self.box is not None

    def rle(self) -> Rle:
        """Return a compressed RLE; whether it covers the image, only `mask` checks. Raises DataError."""
        with self._named_errors():
            refuse(self._invalid())
            if isinstance(self.shape, dict) and not isinstance(self.shape["counts"], list):
                return self.shape
            if self.shape is None:
                return mask_to_rle(self.mask())
            rle = mask_utils.frPyObjects(self.shape, *self.size)
            return mask_utils.merge(rle) if isinstance(self.shape, list) else rle

    def mask(self) -> np.ndarray:
        """Return the mask (height, width) uint8. Raises DataError."""
        if self.shape is None:
            return np.zeros(self.size, np.uint8) if self.box is None else rectangle(self.box, self.size)
        rle = self.rle()
        with self._named_errors():
            mask = mask_utils.decode(rle)
        if isinstance(self.shape, dict):
            refuse(self._truncated(rle))
        return mask

    def checked_rle(self) -> Rle:
        """Return a compressed RLE of a mask that can be drawn. Raises DataError."""
        if isinstance(self.shape, dict):  # the RLE of a polygon always covers the image
            self.mask()
        return self.rle()

    def problem(self, kind: Kind, found: str, expected: str) -> Problem:
        return Problem(kind, str(self.file), f"annotation {self.id}", found, expected)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raise any error of pycocotools as a DataError that names the annotation."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            refuse([self.problem(Kind.OUTLINE, f"cannot be drawn ({error})", "a mask")])

    def _invalid(self) -> Iterator[Problem]:
        """Report polygons with numbers that pycocotools cannot draw, and RLEs of another size."""
        if isinstance(self.shape, dict):
            if tuple(self.shape["size"]) != self.size:
                found = "has run lengths of {!r} x {!r}".format(*self.shape["size"])
                yield self.problem(Kind.SIZE, found, "{} x {} (height x width)".format(*self.size))
            return
        numbers = [number for polygon in self.shape or () for number in polygon]
        not_numbers = [number for number in numbers if not isinstance(number, int | float)]
        if not_numbers:
            yield self.problem(Kind.OUTLINE, f"has a polygon with {not_numbers[0]!r}", "numbers")
        elif far := [number for number in numbers if not abs(number) <= FAR]:  # NaN too
            yield self.problem(Kind.OUTLINE, f"has a polygon at {far[0]:g}", f"pixels from {-FAR:g} to {FAR:g}")

    def _truncated(self, rle: Rle) -> Iterator[Problem]:
        """Report an RLE that ends before the image does; pycocotools leaves the remaining pixels uninitialised."""
        pixels = prod(self.size)
        try:
            mask_utils.decode(rle | {"size": [pixels - 1, 1]})  # an RLE that is whole does not fit a smaller image
        except ValueError:
            return
        yield self.problem(Kind.OUTLINE, "has run lengths that end early", f"{pixels} pixels")

    def misplaced(self) -> Iterator[Problem]:
        """Report polygons past the edge of the image: an error if more than half of the bounding box lies outside."""
        for polygon in self.shape if isinstance(self.shape, list) else ():
            corners = np.array(polygon, float).reshape(-1, 2)  # x, y
            if wrong := misplaced(corners.min(0), corners.max(0), self.size):
                yield self.problem(*wrong)

    def empty(self, area: float) -> Problem:
        """A mask without a pixel: only a warning if the file itself gives an `area` below one."""
        stated = "" if np.isnan(area) else f", where the file says {area:g}"
        kind = Kind.SPECK if area < 1 else Kind.EMPTY
        return self.problem(kind, f"has a mask of 0 pixels{stated}", "a pixel or more")


def outlines_of(annotations: Annotations, index: int, size: tuple[int, int]) -> list[Outline]:
    """Return the outlines of the objects of an image of a size (height, width)."""
    ids, shapes = annotations.of(index).ids.tolist(), annotations.segmentations_of(index)
    boxes = [None if np.isnan(box).any() else box for box in annotations.boxes_of(index)]
    rows = zip(ids, shapes, boxes, strict=True)
    return [Outline(annotations.file, id_, shape, size, box) for id_, shape, box in rows]


def mask_to_rle(mask: np.ndarray) -> Rle:
    """Convert a mask (height, width) to a compressed RLE that both JSON and pycocotools take."""
    rle = mask_utils.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def problems_of_masks(objects: Objects, outlines: Sequence[Outline]) -> Iterator[Problem]:
    """Report everything that is wrong with the masks of one image."""
    rles: dict[int, Rle] = {}  # by place among the objects
    for place, outline in enumerate(outlines):
        try:
            if outline.is_drawn:
                rles[place] = outline.checked_rle()
        except DataError as error:
            yield from error.problems
    areas = mask_utils.area([*rles.values()]).tolist() if rles else []
    drawn = []
    for place, area in zip(rles, areas, strict=True):
        yield from outlines[place].misplaced()
        if not area:
            yield outlines[place].empty(float(objects.areas[place]))
        elif not objects.crowd[place]:
            drawn.append(place)
    if len(drawn) > 1:
        yield from duplicates([outlines[n] for n in drawn], [rles[n] for n in drawn], objects.labels[drawn])


def duplicates(outlines: Sequence[Outline], rles: Sequence[Rle], labels: np.ndarray) -> Iterator[Problem]:
    """Report pairs of a class (N,) whose masks nearly coincide: the same object twice."""
    ious = mask_utils.iou(rles, rles, [0] * len(rles))  # (N, N)
    same = (ious >= DUPLICATE) & (labels[:, None] == labels)
    for first, second in np.argwhere(np.triu(same, 1)).tolist():
        found = f"has almost the mask of annotation {outlines[first].id} of its class (IoU {ious[first, second]:.2f})"
        yield outlines[second].problem(Kind.OVERLAP, found, f"an IoU below {DUPLICATE}")
