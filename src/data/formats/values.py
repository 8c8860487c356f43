"""Values in the entries of COCO's JSON files, as tools write them, put into the form that COCO itself has.

A value that is written differently and can mean one thing only is read so, and all of a kind are said once. One that
means nothing is a problem of its entry.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.data.formats.json_file import Entry
from src.data.problems import Kind, Problem, refuse

PLURALS = {"category": "categories"}
LARGEST = 2**63  # ids below it, with either sign, fit the arrays that hold them
MOST_PIXELS = 2**31  # of a side


class Value(NamedTuple):
    """What entries hold under a key."""

    key: str
    expected: str
    fits: Callable[[Any], bool]  # whether a value is as COCO writes it
    read: Callable[[Any], Any] = lambda value: None  # what another value means; None: nothing
    default: Any = ...  # of an entry that does not say; without one, all must
    shown: Callable[[Any], str] = repr  # what a message calls a value
    kind: Kind = Kind.VALUE  # what it is if a value means nothing


def whole(value: Any) -> int | None:
    """The whole number that stands as text or with a point; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else None


def is_id(value: Any) -> bool:
    return type(value) is int and -LARGEST <= value < LARGEST


def is_name(value: Any) -> bool:
    return type(value) is str and value != ""


def is_color(value: Any) -> bool:
    """Whether a colour can hold it, as the id of a segment; 0 is nothing."""
    return type(value) is int and 0 < value < 2**24


def image_id(value: Any) -> int | str | None:
    """A number with a point is one without; numbers too large for arrays are names."""
    return str(value) if type(value) is int else whole(value)


def side(value: Any) -> int | None:
    """The pixels of a side; 0, not known, for what some tools write instead."""
    number = value if type(value) is int else whole(value)
    return None if number is None or number >= MOST_PIXELS else max(number, 0)


def crowd(value: Any) -> int | None:
    number = int(value) if isinstance(value, bool) else whole(value)
    return number if number in (0, 1) else None


def color(value: Any) -> int | None:
    """The id of a segment."""
    number = whole(value)
    return number if is_color(number) else None


def area(value: Any) -> float | None:
    """An area that stands as text; NaN, to be counted, for a number that is none."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        return None
    return math.nan if number is not None and not 0 <= number < LARGEST else number


def is_area(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < LARGEST


def known(number: float) -> str:
    """A number of pixels as a message calls it."""
    return repr(number) if number > 0 else "not known"


SIDE = Value("", "pixels", lambda v: type(v) is int and 0 < v < MOST_PIXELS, side, 0, known)
SIZES = (SIDE._replace(key="height"), SIDE._replace(key="width"))
IMAGE = Value("id", "a number or a name", lambda v: is_id(v) or is_name(v), image_id)
IMAGES = (IMAGE, Value("file_name", "the name of a picture", is_name), *SIZES)
CATEGORIES = (
    Value("id", "a whole number", is_id, whole),
    Value("name", "text", lambda v: type(v) is str, lambda v: str(v) if type(v) is int else None),
    Value("isthing", "0 or 1", lambda v: type(v) in (int, bool) and v in (0, 1), crowd),
)
CLASS = Value("category_id", "the id of a category", is_id, whole)
OWNER = IMAGE._replace(key="image_id", kind=Kind.UNLISTED)
CROWD = Value("iscrowd", "0 or 1", lambda v: type(v) is int and v in (0, 1), crowd, 0)
AREA = Value("area", "pixels", is_area, area, math.nan, known)
OBJECTS = (CLASS, CROWD, AREA, OWNER)
MASKS = (OWNER, Value("file_name", "the name of a mask", is_name))
SEGMENT = Value("id", "a whole number from 1 to 16777215, R + 256 G + 65536 B", is_color, color)
SEGMENTS = (CLASS, CROWD, AREA, SEGMENT)


def part(document: Any, key: str, file: Path) -> list[Entry]:
    """One of the lists of a document. Raises DataError, in words, where it has none."""
    wanted = f"COCO's layout, an object with {key!r}, a list of objects"
    if not isinstance(document, dict):
        refuse([Problem(Kind.UNREADABLE, str(file), "", f"holds a {type(document).__name__}", wanted)])
    if key not in document:
        has = ", ".join(map(repr, [*document][:6])) or "nothing"
        refuse([Problem(Kind.UNREADABLE, str(file), "", f"has no {key!r}; it has {has}", wanted)])
    return objects(document[key], key, file)


def objects(entries: Any, key: str, file: Path, of: str = "") -> list[Entry]:
    """A list of objects. Raises DataError for anything else."""
    if not isinstance(entries, list) or not all(type(entry) is dict for entry in entries):
        odd = next((e for e in entries if type(e) is not dict), None) if isinstance(entries, list) else entries
        found = f"has {type(odd).__name__} {brief(odd)} in {key!r}"
        refuse([Problem(Kind.UNREADABLE, str(file), of, found, f"{key!r} to be a list of objects")])
    return entries


def put_right(
    entries: list[Entry], values: Sequence[Value], file: Path, noun: str, called: Callable[[Entry], str] | None = None
) -> Iterator[Problem]:
    """Put values right, in place, key by key; one that means nothing becomes None, and the class of its entry too.

    Args:
        noun: what an entry is.
        called: what an entry is called in a message; by its id, if it is not given.
    """
    called = called or places(entries, noun)
    for value in values:
        yield from put_key_right(entries, value, file, called, PLURALS.get(noun, f"{noun}s"))


def put_key_right(
    entries: list[Entry], value: Value, file: Path, called: Callable[[Entry], str], plural: str
) -> Iterator[Problem]:
    """`put_right` for one key."""
    odd = [entry for entry in entries if not value.fits(entry.get(value.key))]
    read: dict[str, list[str]] = {}  # who has it, by what is written and what was read
    for entry in odd:
        before = entry.get(value.key)
        after = (None if value.default is ... else value.default) if before is None else value.read(before)
        if after is None:
            yield means_nothing(entry, value, file, called(entry))
            entry["category_id"] = None
        elif before is not None:
            read.setdefault(f"has {value.key} {brief(before)}, read as {value.shown(after)}", []).append(called(entry))
        entry[value.key] = after
    first, count = next(iter(read.items()), ("", [])), sum(map(len, read.values()))
    if count:
        more = f", and so on in {count} {plural}" * (count > 1)
        yield Problem(Kind.READ_AS, str(file), first[1][0], first[0] + more, value.expected)


def means_nothing(entry: Entry, value: Value, file: Path, called: str) -> Problem:
    """A value that is missing or cannot be."""
    found = f"has {value.key} {brief(entry[value.key])}" if entry.get(value.key) is not None else f"has no {value.key}"
    return Problem(value.kind, str(file), called, found, value.expected)


def brief(value: Any) -> str:
    """A value as a message can hold it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def places(entries: list[Entry], noun: str) -> Callable[[Entry], str]:
    """What an entry is called: by its id, by its place where it has none."""
    place_of = {id(entry): place for place, entry in enumerate(entries)}
    return lambda entry: (
        f"{noun} {entry['id']}" if entry.get("id") is not None else f"{noun} {place_of[id(entry)]}, from 0"
    )
