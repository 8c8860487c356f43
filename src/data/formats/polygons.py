"""Outlines of objects as other tools write them, normalized to COCO's forms: polygons, x, y, x, y ..., or RLEs."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from src.data.formats.json_file import Entry
from src.data.problems import Kind, Problem, read_as

LEAST = 6  # numbers of a polygon that has an area: three corners
EXPECTED = "polygons, x, y, x, y ..., or run lengths, size and counts"
FLAT = "has one list of numbers for segmentation, read as one polygon"
PAIRS = "has corners as pairs, read as x, y, x, y ..."
NOT_ENOUGH = "boxes are not enough for masks, use segmentation=boxes to detect objects"
DROPPED = "has parts of one or two corners, which draw nothing and are left out"


def normalize_outlines(entries: list[Entry], file: Path, masks: bool = True) -> list[Problem]:
    """Normalize the outlines of objects in place and return the problems.

    An outline without a meaning becomes None, and so does the category of its object. Without `masks`, an object may
    have no outline, which is None.
    """
    bare = [entry for entry in entries if not entry.get("segmentation")]
    for entry in bare:
        entry["segmentation"] = None
    problems = [*without_outline(bare, len(entries), file)] if masks else []
    ids_of: dict[str, list[Any]] = {}  # the annotations of each other form
    for entry in entries:
        outline = entry["segmentation"]
        if outline is None or is_normal(outline):
            continue
        forms, polygons = to_polygons(outline)
        for form in forms:
            ids_of.setdefault(form, []).append(entry["id"])
        entry["segmentation"] = polygons
        if polygons is None:
            entry["category_id"] = None
            problems.append(invalid(entry, why_invalid(outline), file))
    for form, ids in ids_of.items():
        problems.append(read_as(file, f"annotation {ids[0]}", form, EXPECTED, len(ids)))
    return problems


def without_outline(bare: list[Entry], number: int, file: Path) -> Iterator[Problem]:
    """Report the objects without an outline, of a number of objects; their categories become None."""
    for entry in bare:
        entry["category_id"] = None
    if bare and len(bare) == number:  # a file that was made for detection
        content = "boxes only" if any(entry.get("bbox") for entry in bare) else "no segmentation at all"
        found = f"has {content}, in all of its {number} annotations"
        yield Problem(Kind.OUTLINE, str(file), "", found, f"{EXPECTED}: {NOT_ENOUGH}")
        return
    for entry in bare:
        has_box = bool(entry.get("bbox"))
        yield invalid(entry, "has no segmentation", file, f"{EXPECTED}: {NOT_ENOUGH}" if has_box else EXPECTED)


def is_normal(outline: Any) -> bool:
    """Whether an outline seems to have COCO's form; of each polygon only the first number is looked at."""
    if type(outline) is dict:
        return type(outline.get("size")) is list and len(outline["size"]) == 2 and "counts" in outline
    return type(outline) is list and all(
        type(part) is list and len(part) >= LEAST and not len(part) % 2 and is_number(part[0]) for part in outline
    )


def to_polygons(outline: Any) -> tuple[list[str], list[list[float]] | None]:
    """Return the other forms that an outline has, and its polygons; None if it has no meaning."""
    if not isinstance(outline, list):
        return [], None
    is_flat = all(map(is_number, outline))
    is_one = is_flat or (len(outline) >= LEAST // 2 and all(map(is_pair, outline)))  # a pair alone has no area
    parts = [outline] if is_one else outline
    forms = [FLAT] if is_flat else [PAIRS] if any(map(is_corners, parts)) else []
    parts = [[*chain(*part)] if is_corners(part) else part for part in parts]
    if not all(isinstance(part, list) and all(map(is_number, part)) and len(part) % 2 == 0 for part in parts):
        return [], None
    polygons = [part for part in parts if len(part) >= LEAST]
    if not polygons:
        return [], None
    if len(polygons) < len(parts):
        forms.append(DROPPED)
    return forms, polygons


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def is_corners(part: Any) -> bool:
    return isinstance(part, list) and part != [] and all(map(is_pair, part))


def why_invalid(outline: Any) -> str:
    if isinstance(outline, list) and all(isinstance(part, list) for part in outline):
        for part in outline:
            if all(map(is_number, part)):
                return f"has a polygon of {len(part)} numbers, which must be even and at least {LEAST}"
    return f"has an invalid segmentation, {repr(outline)[:60]}"


def invalid(entry: Entry, found: str, file: Path, expected: str = EXPECTED) -> Problem:
    return Problem(Kind.OUTLINE, str(file), f"annotation {entry['id']}", found, expected)
