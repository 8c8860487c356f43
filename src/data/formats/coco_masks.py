"""Masks in COCO's instances files, polygons or run lengths (RLE): drawn, and checked without reading an image.

Letters: N objects of one image.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from src.data.formats.annotations import Objects
from src.data.problems import DataError, Kind, Problem, refuse

Polygons = list[list[float]]  # x, y, x, y ...
Rle = dict[str, Any]  # size, (height, width), and counts
Outline = Polygons | Rle | None  # None: the file has none, which is reported on reading
DUPLICATE = 0.9  # intersection over union from which two objects of a class count as one
EDGE = 1.0  # pixels by which a polygon may pass the edge, as COCO's own do
FAR = 1e5  # pixels; pycocotools walks along an outline in small steps, and crashes if it cannot count them


def draw_mask(file: Path, id_: int, outline: Outline, size: tuple[int, int]) -> np.ndarray:
    """Draw an annotation's mask, (height, width) uint8, for an image of that size. Raises DataError."""
    if outline is None:
        return np.zeros(size, np.uint8)
    rle = to_rle(file, id_, outline, size)
    with named_errors(file, id_):
        mask = mask_utils.decode(rle)
    if isinstance(outline, dict):
        refuse(truncated_rle(file, id_, rle))
    return mask


def mask_to_rle(mask: np.ndarray) -> Rle:
    """Convert a mask (height, width) to a compressed RLE that both JSON and pycocotools take."""
    rle = mask_utils.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def to_rle(file: Path, id_: int, outline: Polygons | Rle, size: tuple[int, int]) -> Rle:
    """Convert an outline to a compressed RLE; whether this covers the image, only `draw_mask` checks.

    Raises DataError.
    """
    with named_errors(file, id_):
        refuse(invalid_outline(file, id_, outline, size))
        if isinstance(outline, list):
            return mask_utils.merge(mask_utils.frPyObjects(outline, *size))
        return mask_utils.frPyObjects(outline, *size) if isinstance(outline["counts"], list) else outline


@contextmanager
def named_errors(file: Path, id_: int) -> Iterator[None]:
    """Raise any error of pycocotools as a DataError that names the annotation."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        refuse([Problem(Kind.OUTLINE, str(file), f"annotation {id_}", f"cannot be drawn ({error})", "a mask")])


def invalid_outline(file: Path, id_: int, outline: Polygons | Rle, size: tuple[int, int]) -> Iterator[Problem]:
    """Report polygons with numbers that pycocotools cannot draw, and RLEs of another size."""
    where = (str(file), f"annotation {id_}")
    if isinstance(outline, dict):
        if tuple(outline["size"]) != size:
            found = "has run lengths of {!r} x {!r}".format(*outline["size"])
            yield Problem(Kind.SIZE, *where, found, "{} x {} (height x width)".format(*size))
        return
    numbers = [number for polygon in outline for number in polygon]
    not_numbers = [number for number in numbers if not isinstance(number, int | float)]
    if not_numbers:
        yield Problem(Kind.OUTLINE, *where, f"has a polygon with {not_numbers[0]!r}", "numbers")
        return
    far = [number for number in numbers if not abs(number) <= FAR]  # NaN too
    if far:
        yield Problem(Kind.OUTLINE, *where, f"has a polygon at {far[0]:g}", f"pixels from {-FAR:g} to {FAR:g}")


def truncated_rle(file: Path, id_: int, rle: Rle) -> Iterator[Problem]:
    """Report an RLE that ends before the image does; pycocotools leaves the remaining pixels uninitialised."""
    pixels = prod(rle["size"])
    try:
        mask_utils.decode(rle | {"size": [pixels - 1, 1]})  # an RLE that is whole does not fit into a smaller image
    except ValueError:
        return
    yield Problem(Kind.OUTLINE, str(file), f"annotation {id_}", "has run lengths that end early", f"{pixels} pixels")


def problems_of_masks(
    file: Path, objects: Objects, outlines: list[Outline], size: tuple[int, int]
) -> Iterator[Problem]:
    """Report everything that is wrong with the masks of one image of a size (height, width)."""
    rles: dict[int, Rle] = {}  # by place among the objects
    for place, (id_, outline) in enumerate(zip(objects.ids.tolist(), outlines, strict=True)):
        if outline is None:
            continue
        try:
            rles[place] = checked_rle(file, id_, outline, size)
        except DataError as error:
            yield from error.problems
    if not rles:
        return
    drawn: dict[int, Rle] = {}
    for (place, rle), area in zip(rles.items(), mask_utils.area([*rles.values()]).tolist(), strict=True):
        id_ = int(objects.ids[place])
        yield from misplaced_polygons(file, id_, outlines[place], size)
        if not area:
            yield empty_mask(file, id_, float(objects.areas[place]))
        elif not objects.crowd[place]:
            drawn[place] = rle
    yield from duplicates(file, objects, drawn)


def checked_rle(file: Path, id_: int, outline: Polygons | Rle, size: tuple[int, int]) -> Rle:
    """`to_rle` for outlines that can be drawn; the RLE of a polygon always can. Raises DataError."""
    if isinstance(outline, dict):
        draw_mask(file, id_, outline, size)
    return to_rle(file, id_, outline, size)


def misplaced_polygons(file: Path, id_: int, outline: Outline, size: tuple[int, int]) -> Iterator[Problem]:
    """Report polygons past the edge of the image: an error if more than half of the bounding box lies outside."""
    for polygon in outline if isinstance(outline, list) else ():
        corners = np.array(polygon, float).reshape(-1, 2)  # x, y
        low, high, limit = corners.min(0), corners.max(0), np.array(size[::-1])
        if (low >= -EDGE).all() and (high <= limit + EDGE).all():
            continue
        sides = np.maximum(high - low, 1e-9)
        inside = np.prod((np.minimum(high, limit) - np.maximum(low, 0)).clip(0) / sides)
        box = f"spans x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}"
        expected = f"x from 0 to {limit[0]}, y from 0 to {limit[1]}"
        kind = Kind.OUTSIDE if inside < 0.5 else Kind.OVER_EDGE
        yield Problem(kind, str(file), f"annotation {id_}", box, expected)


def empty_mask(file: Path, id_: int, area: float) -> Problem:
    """A mask without a pixel: only a warning if the file itself gives an area below one."""
    stated = "" if np.isnan(area) else f", where the file says {area:g}"
    kind = Kind.SPECK if area < 1 else Kind.EMPTY
    return Problem(kind, str(file), f"annotation {id_}", f"has a mask of 0 pixels{stated}", "a pixel or more")


def duplicates(file: Path, objects: Objects, drawn: dict[int, Rle]) -> Iterator[Problem]:
    """Report pairs of a class whose masks nearly coincide: the same object twice."""
    if len(drawn) < 2:
        return
    places, rles = np.array([*drawn]), [*drawn.values()]
    ious = mask_utils.iou(rles, rles, [0] * len(rles))  # (N, N)
    labels = objects.labels[places]
    same = (ious >= DUPLICATE) & (labels[:, None] == labels)
    for first, second in np.argwhere(np.triu(same, 1)).tolist():
        first_id, second_id = objects.ids[places[[first, second]]].tolist()
        found = f"covers what annotation {first_id} of its class covers (IoU {ious[first, second]:.2f})"
        yield Problem(Kind.OVERLAP, str(file), f"annotation {second_id}", found, f"an IoU below {DUPLICATE}")
