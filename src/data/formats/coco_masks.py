"""Masks as COCO's instance files have them, polygons or run lengths: read, and checked without a picture.

Letters: N the objects of one image.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from src.data.formats.annotations import Objects
from src.data.problems import DataError, Kind, Problem, refuse

Polygons = list[list[float]]  # x, y, x, y ...
Runs = dict[str, Any]  # run lengths: size, (height, width), and counts
Outline = Polygons | Runs | None  # None: the file has none
SAME = 0.9  # intersection over union from which two objects of a class are taken for one
EDGE = 1.0  # pixels that a polygon may pass the edge by, as COCO's own do
FAR = 1e5  # pixels; pycocotools walks along an outline in small steps, and crashes where it cannot count them


def decode(file: Path, id_: int, outline: Outline, size: tuple[int, int]) -> np.ndarray:
    """An annotation's mask, (height, width) uint8 for an image of that size; nothing where there was no outline.

    Raises DataError for an outline that is none.
    """
    if outline is None:  # which is said on reading
        return np.zeros(size, np.uint8)
    runs = encode(file, id_, outline, size)
    with drawable(file, id_):
        mask = run_lengths.decode(runs)
    if isinstance(outline, dict):  # of a polygon they are whole
        refuse(short(file, id_, runs))
    return mask


def packed(mask: np.ndarray) -> dict[str, Any]:
    """A mask (height, width) as run lengths that JSON can hold, and pycocotools takes too."""
    runs = run_lengths.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": runs["counts"].decode()}


def encode(file: Path, id_: int, outline: Polygons | Runs, size: tuple[int, int]) -> dict[str, Any]:
    """Its run lengths, which `decode` alone sees to be whole."""
    with drawable(file, id_):
        refuse(malformed(file, id_, outline, size))
        if isinstance(outline, list):
            return run_lengths.merge(run_lengths.frPyObjects(outline, *size))
        return run_lengths.frPyObjects(outline, *size) if isinstance(outline["counts"], list) else outline


@contextmanager
def drawable(file: Path, id_: int) -> Iterator[None]:
    """A place where pycocotools works, which raises whatever its C code met, on outlines of any shape."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        refuse([Problem(Kind.OUTLINE, str(file), f"annotation {id_}", f"cannot be drawn ({error})", "a mask")])


def malformed(file: Path, id_: int, outline: Polygons | Runs, size: tuple[int, int]) -> Iterator[Problem]:
    """Polygons too far off to be drawn, and run lengths of another size."""
    if isinstance(outline, list):
        numbers = [number for polygon in outline for number in polygon]
        if odd := [number for number in numbers if not isinstance(number, int | float)]:
            said = (f"has a polygon with {odd[0]!r}", "numbers")
            yield Problem(Kind.OUTLINE, str(file), f"annotation {id_}", *said)
        elif far := [number for number in numbers if not abs(number) <= FAR]:  # NaN too
            said = (f"has a polygon at {far[0]:g}", f"pixels from {-FAR:g} to {FAR:g}")
            yield Problem(Kind.OUTLINE, str(file), f"annotation {id_}", *said)
    elif tuple(outline["size"]) != size:
        said = ("has run lengths of {!r} x {!r}".format(*outline["size"]), "{} x {} (height x width)".format(*size))
        yield Problem(Kind.SIZE, str(file), f"annotation {id_}", *said)


def short(file: Path, id_: int, runs: dict[str, Any]) -> Iterator[Problem]:
    """Run lengths that end before the image does: in the rest pycocotools leaves what memory held."""
    pixels = prod(runs["size"])
    try:
        run_lengths.decode(runs | {"size": [pixels - 1, 1]})  # into an image that is too small for them
    except ValueError:
        return
    yield Problem(Kind.OUTLINE, str(file), f"annotation {id_}", "has run lengths that end early", f"{pixels} pixels")


def outline_flaws(file: Path, objects: Objects, outlines: list[Outline], size: tuple[int, int]) -> Iterator[Problem]:
    """All that is wrong with the masks of one image of a size (height, width)."""
    encoded: dict[int, dict[str, Any]] = {}  # by place among the objects
    for place, (id_, outline) in enumerate(zip(objects.ids.tolist(), outlines, strict=True)):
        if outline is None:  # which is said on reading
            continue
        try:
            if isinstance(outline, dict):
                decode(file, id_, outline, size)
            encoded[place] = encode(file, id_, outline, size)
        except DataError as error:
            yield from error.problems
    areas = dict(zip(encoded, run_lengths.area([*encoded.values()]).tolist() if encoded else [], strict=True))
    for place in encoded:
        yield from misplaced(file, int(objects.ids[place]), outlines[place], size)
        if not areas[place]:
            yield empty(file, int(objects.ids[place]), float(objects.areas[place]))
    drawn = {place: runs for place, runs in encoded.items() if areas[place] and not objects.crowd[place]}
    yield from overlapping(file, objects, drawn)


def misplaced(file: Path, id_: int, outline: Outline, size: tuple[int, int]) -> Iterator[Problem]:
    """A polygon past the edge of the image: a fault if more than half of its bounding box lies outside."""
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


def empty(file: Path, id_: int, area: float) -> Problem:
    """A mask without a pixel: a fault unless the file itself says that it is smaller than one."""
    stated = "" if np.isnan(area) else f", where the file says {area:g}"
    kind = Kind.SPECK if area < 1 else Kind.EMPTY
    return Problem(kind, str(file), f"annotation {id_}", f"has a mask of 0 pixels{stated}", "a pixel or more")


def overlapping(file: Path, objects: Objects, drawn: dict[int, dict[str, Any]]) -> Iterator[Problem]:
    """Pairs of a class that are nearly one mask: the same object twice."""
    if len(drawn) < 2:
        return
    places, runs = np.array([*drawn]), [*drawn.values()]
    ious = run_lengths.iou(runs, runs, [0] * len(runs))  # (N, N)
    labels = objects.labels[places]
    for one, other in np.argwhere(np.triu((ious >= SAME) & (labels[:, None] == labels), 1)).tolist():
        first, second = objects.ids[places[[one, other]]].tolist()
        found = f"covers what annotation {first} of its class covers (IoU {ious[one, other]:.2f})"
        yield Problem(Kind.OVERLAP, str(file), f"annotation {second}", found, f"an IoU below {SAME}")
