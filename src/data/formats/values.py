"""Values in COCO's JSON files as other tools write them, normalized to COCO's own form.

A value in another form that has only one possible meaning is read with that meaning, with one warning for each key. A
value without a meaning is a problem of its entry.
"""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from src.data.formats.json_file import Entry, brief
from src.data.problems import Kind, Problem, read_as

PLURALS = {"category": "categories"}
LARGEST = 2**63  # ids below it, with either sign, fit the arrays that hold them
MAX_SIDE = 2**31  # pixels
HEX_COLOR = "#[0-9a-fA-F]{6}"


def never(value: Any) -> None:
    """Read no other form of a value."""


class Value(NamedTuple):
    """What entries hold under a key."""

    key: str
    expected: str
    fits: Callable[[Any], bool]  # whether a value is as COCO writes it
    read: Callable[[Any], Any] = never  # the meaning of another value, None if it has none
    default: Any = None  # for entries without the key; None: the key is required
    shown: Callable[[Any], str] = repr  # how a message shows the value
    kind: Kind = Kind.VALUE  # of the problem if a value has no meaning


def whole(low: int, high: int) -> Callable[[Any], bool]:
    """Return a test for whole numbers from `low` to below `high`."""
    return lambda value: type(value) is int and low <= value < high


is_id = whole(-LARGEST, LARGEST)
is_segment_id = whole(1, 2**24)  # a colour can hold it; 0 is void


def is_name(value: Any) -> bool:
    return type(value) is str and value != ""


def is_area(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < LARGEST


def is_color(value: Any) -> bool:
    """Whether a value is #rrggbb, three numbers below 256, or empty: no colour."""
    if isinstance(value, str) and value:
        return re.fullmatch(HEX_COLOR, value) is not None
    is_rgb = isinstance(value, list | tuple) and len(value) == 3 and all(part in range(256) for part in value)
    return is_rgb or not value


def to_whole(value: Any) -> int | None:
    """Return the whole number that a text or a float stands for, else None."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else None


def to_image_id(value: Any) -> int | str | None:
    """Return a float as a whole number, and a number too large for arrays as a name."""
    return str(value) if type(value) is int else to_whole(value)


def to_segment_id(value: Any) -> int | None:
    number = to_whole(value)
    return number if is_segment_id(number) else None


def to_flag(value: Any) -> int | None:
    number = int(value) if isinstance(value, bool) else to_whole(value)
    return number if number in (0, 1) else None


def to_side(value: Any) -> int | None:
    """Return a side in pixels; 0, for unknown, where a tool writes 0 or -1."""
    number = value if type(value) is int else to_whole(value)
    return None if number is None or number >= MAX_SIDE else max(number, 0)


def to_area(value: Any) -> float | None:
    """Return an area written as text; NaN, for unknown, for a number that is not an area."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < LARGEST else math.nan


def pixels(number: float) -> str:
    return repr(number) if number > 0 else "not known"


SIDE = Value("", "pixels", whole(1, MAX_SIDE), to_side, default=0, shown=pixels)
SIZES = (SIDE._replace(key="height"), SIDE._replace(key="width"))
IMAGE_ID = Value("id", "a number or a name", lambda value: is_id(value) or is_name(value), to_image_id)
IMAGES = (IMAGE_ID, Value("file_name", "the name of an image file", is_name), *SIZES)
ISTHING = Value("isthing", "0 or 1", lambda value: type(value) in (int, bool) and value in (0, 1), to_flag)
CATEGORIES = (
    Value("id", "a whole number", is_id, to_whole),
    Value("name", "text", lambda value: type(value) is str, lambda value: str(value) if type(value) is int else None),
    Value("color", "three numbers from 0 to 255 or #rrggbb", is_color),
)
OWNER = IMAGE_ID._replace(key="image_id", kind=Kind.UNLISTED)
OBJECTS = (
    Value("category_id", "the id of a category", is_id, to_whole),
    Value("iscrowd", "0 or 1", whole(0, 2), to_flag, default=0),
    Value("area", "pixels", is_area, to_area, default=math.nan, shown=pixels),
)
ANNOTATIONS = (*OBJECTS, OWNER)
MASKS = (OWNER, Value("file_name", "the name of a mask", is_name))
SEGMENT_ID = Value("id", "a whole number from 1 to 16777215, R + 256 G + 65536 B", is_segment_id, to_segment_id)
SEGMENTS = (*OBJECTS, SEGMENT_ID)


def normalize(entries: list[Entry], values: Iterable[Value], file: Path, noun: str) -> list[Problem]:
    """Normalize the values of entries in place and return the problems.

    A value without a meaning becomes None, and so does the `category_id` of its entry. Messages call an entry by the
    `noun` and its id, or its place if it has none; a segment also by its `image_id`.
    """
    return [problem for value in values for problem in normalize_key(entries, value, file, noun)]


def normalize_key(entries: list[Entry], value: Value, file: Path, noun: str) -> list[Problem]:
    """`normalize` for one key."""
    problems: list[Problem] = []
    read: list[tuple[str, str]] = []  # name of an entry, and how its value is read
    unusual = [(place, entry) for place, entry in enumerate(entries) if not value.fits(entry.get(value.key))]
    for place, entry in unusual:
        written, name = entry.get(value.key), entry_name(entry, place, noun)
        meaning = value.default if written is None else value.read(written)
        if meaning is None:
            found = f"has no {value.key}" if written is None else f"has {value.key} {brief(written)}"
            problems.append(Problem(value.kind, str(file), name, found, value.expected))
            entry["category_id"] = None
        elif written is not None:
            read.append((name, f"has {value.key} {brief(written)}, read as {value.shown(meaning)}"))
        entry[value.key] = meaning
    if read:
        problems.append(read_as(file, *read[0], value.expected, len(read), PLURALS.get(noun, f"{noun}s")))
    return problems


def entry_name(entry: Entry, place: int, noun: str) -> str:
    if noun == "segment":
        return f"image {entry['image_id']}, segment {entry.get('id')}"
    return f"{noun} {place}, from 0" if entry.get("id") is None else f"{noun} {entry['id']}"
