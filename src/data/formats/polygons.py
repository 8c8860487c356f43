"""Outlines of objects as tools write them, put into COCO's form: polygons x, y, x, y ..., or run lengths."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.data.formats.json_file import Entry
from src.data.problems import Kind, Problem

LEAST = 6  # numbers of a polygon that draws something: three corners
WANTED = "polygons, x, y, x, y ..., or run lengths, size and counts"
FORMS = {
    "flat": "has one list of numbers for segmentation, read as one polygon",
    "pairs": "has corners as pairs, read as x, y, x, y ...",
    "dropped": "has parts of one or two corners, which draw nothing and are left out",
}


def put_outlines_right(entries: list[Entry], file: Path) -> Iterator[Problem]:
    """Put the outlines of objects right, in place; one that means nothing becomes None, and its class too."""
    without = [entry for entry in entries if not entry.get("segmentation")]
    if entries and len(without) == len(entries):
        yield boxes_only(entries, file)
    else:
        yield from (no_outline(file, entry["id"]) for entry in without)
    read: dict[str, list[Any]] = {}  # the annotations of each form
    for entry in entries:
        outline = entry.get("segmentation")
        if not outline:
            entry["segmentation"] = entry["category_id"] = None
        elif not is_plain(outline):
            forms, entry["segmentation"] = plain(outline)
            for form in forms:
                read.setdefault(form, []).append(entry["id"])
            if entry["segmentation"] is None:
                entry["category_id"] = None
                yield Problem(Kind.OUTLINE, str(file), f"annotation {entry['id']}", said_of(outline), WANTED)
    for form, ids in read.items():
        more = f", and so on in {len(ids)} annotations" * (len(ids) > 1)
        yield Problem(Kind.READ_AS, str(file), f"annotation {ids[0]}", FORMS[form] + more, WANTED)


def is_plain(outline: Any) -> bool:
    """Whether an outline has COCO's form, as far as it tells at a glance."""
    if type(outline) is dict:
        return type(outline.get("size")) is list and len(outline["size"]) == 2 and "counts" in outline
    return type(outline) is list and all(
        type(part) is list and len(part) >= LEAST and not len(part) % 2 and is_number(part[0]) for part in outline
    )


def plain(outline: Any) -> tuple[list[str], list[list[float]] | None]:
    """The forms that an outline was found in, and its polygons; None if it means nothing."""
    if not isinstance(outline, list):
        return [], None
    forms = []
    if all(map(is_number, outline)):
        forms, outline = ["flat"], [outline]
    elif len(outline) >= LEAST // 2 and all(map(is_pair, outline)):  # corners of one polygon, since no part draws
        forms, outline = ["pairs"], [joined(outline)]
    elif any(isinstance(part, list) and part and all(map(is_pair, part)) for part in outline):
        forms, outline = ["pairs"], [joined(part) if all(map(is_pair, part)) else part for part in outline]
    if not all(isinstance(part, list) and all(map(is_number, part)) and not len(part) % 2 for part in outline):
        return [], None
    drawn = [part for part in outline if len(part) >= LEAST]
    return [*forms, *["dropped"] * (len(drawn) < len(outline))] if drawn else [], drawn or None


def joined(corners: list[list[float]]) -> list[float]:
    return [number for corner in corners for number in corner]


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def said_of(outline: Any) -> str:
    """What is wrong with an outline that means nothing."""
    parts = outline if isinstance(outline, list) else []
    for part in parts if all(isinstance(part, list) for part in parts) else []:
        if all(map(is_number, part)):
            return f"has a polygon of {len(part)} numbers, where an even number of them from {LEAST} draws something"
    return f"has a segmentation that is none, {repr(outline)[:60]}"


def boxes_only(entries: list[Entry], file: Path) -> Problem:
    """Said once, of a file that was made for detection."""
    some = "boxes only" if any(entry.get("bbox") for entry in entries) else "no segmentation at all"
    found = f"has {some}, in all of its {len(entries)} annotations"
    return Problem(Kind.OUTLINE, str(file), "", found, f"{WANTED}: boxes are not enough for masks")


def no_outline(file: Path, id_: int) -> Problem:
    return Problem(Kind.OUTLINE, str(file), f"annotation {id_}", "has no segmentation", WANTED)
