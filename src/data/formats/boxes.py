"""Boxes in COCO's instances files, left, top, width and height: read, and checked without reading an image.

Letters: N objects of one image.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from src.data.formats.json_file import Entry, brief
from src.data.problems import Kind, Problem, read_as

EDGE = 1.0  # pixels by which a box or a polygon may pass the edge, as COCO's own do
EXPECTED = "left, top, width and height in pixels, a size above 0"
FROM_MASK = "read from the segmentation"


def normalize_boxes(entries: list[Entry], file: Path) -> list[Problem]:
    """Normalize the boxes of objects in place, and return what a task of boxes cannot learn from.

    A box without a meaning becomes None: that of the segmentation counts. An object that has none of the two is a
    problem. `segmentation` is None where an object has none.
    """
    problems, from_mask = [], []
    for entry in entries:
        written = entry.get("bbox")
        entry["bbox"] = written if is_box(written) else None
        if entry["bbox"] is not None or (entry["segmentation"] is not None and not written):
            continue
        if entry["segmentation"] is not None:
            from_mask.append((entry["id"], f"has bbox {brief(written)}, {FROM_MASK}"))
            continue
        entry["category_id"] = None
        found = f"has bbox {brief(written)}" if written else "has neither a bbox nor a segmentation"
        problems.append(Problem(Kind.BOX, str(file), f"annotation {entry['id']}", found, EXPECTED))
    if from_mask:
        id_, found = from_mask[0]
        problems.append(read_as(file, f"annotation {id_}", found, EXPECTED, len(from_mask)))
    return problems


def is_box(value: Any) -> bool:
    """Whether a value is four finite numbers, the last two above 0."""
    if type(value) is not list or len(value) != 4 or not all(type(number) in (int, float) for number in value):
        return False
    return all(abs(number) < 1e9 for number in value) and min(value[2:]) > 0  # not NaN, nor infinite


def corners_of(entries: list[Entry]) -> np.ndarray:
    """Return left, top, right and bottom of the boxes of objects, NaN where they have none: (N, 4) float32."""
    nothing = [np.nan] * 4
    boxes = np.array([entry.get("bbox") or nothing for entry in entries], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes.astype(np.float32)


def misplaced(low: np.ndarray, high: np.ndarray, size: tuple[int, int]) -> tuple[Kind, str, str] | None:
    """Return what is wrong with the place of an outline from `low` to `high` (x, y) in an image (height, width).

    It is the kind of problem, what was found and what was expected: an error if more than half of the bounding box
    lies outside. None if nothing is.
    """
    limit = np.array(size[::-1])
    if (low >= -EDGE).all() and (high <= limit + EDGE).all():
        return None
    sides = np.maximum(high - low, 1e-9)
    inside = np.prod((np.minimum(high, limit) - np.maximum(low, 0)).clip(0) / sides)
    kind = Kind.OUTSIDE if inside < 0.5 else Kind.OVER_EDGE
    found = f"spans x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}"
    return kind, found, f"x from 0 to {limit[0]}, y from 0 to {limit[1]}"


def problems_of_boxes(ids: np.ndarray, boxes: np.ndarray, size: tuple[int, int], file: Path) -> Iterator[Problem]:
    """Report boxes (N, 4) of an image (height, width) that pass its edge; those that are NaN are unknown."""
    for id_, box in zip(ids.tolist(), boxes.astype(float), strict=True):
        if not np.isnan(box).any() and (wrong := misplaced(box[:2], box[2:], size)):
            kind, found, expected = wrong
            yield Problem(kind, str(file), f"annotation {id_}", f"has a box that {found}", expected)


def rectangle(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the mask (height, width) uint8 of a box, rounded to pixels, at least one of them."""
    limit = np.array(size[::-1])
    low = np.rint(box[:2]).clip(0, limit - 1).astype(int)
    high = np.maximum(np.rint(box[2:]).clip(0, limit).astype(int), low + 1)
    mask = np.zeros(size, np.uint8)
    mask[low[1] : high[1], low[0] : high[0]] = 1
    return mask
