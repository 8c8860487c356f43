"""JSON annotation files and the lists of entries in them."""

import json
from pathlib import Path
from typing import Any

from src.data.problems import Kind, fail

Entry = dict[str, Any]


def read_json(file: Path) -> Any:
    """Return the content of a JSON file, with or without a byte order mark. Raises DataError."""
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:  # no JSON, no Unicode, or a number of too many digits
        fail(Kind.UNREADABLE, file, f"not readable as JSON ({error})", "a complete file")


def entries_of(document: Any, key: str, file: Path) -> list[Entry]:
    """Return the list of entries under a key of a document. Raises DataError if there is none."""
    expected = f"COCO's layout, an object with {key!r}, a list of objects"
    if not isinstance(document, dict):
        fail(Kind.UNREADABLE, file, f"holds a {type(document).__name__}", expected)
    if key not in document:
        keys = ", ".join(map(repr, [*document][:6])) or "nothing"
        fail(Kind.UNREADABLE, file, f"has no {key!r}; it has {keys}", expected)
    return checked_entries(document[key], key, file)


def checked_entries(entries: Any, key: str, file: Path, owner: str = "") -> list[Entry]:
    """Return `entries` if it is a list of objects. Raises DataError naming the `owner` of the list if not."""
    wrong = [entry for entry in entries if type(entry) is not dict] if isinstance(entries, list) else [entries]
    if wrong:
        found = f"has {type(wrong[0]).__name__} {brief(wrong[0])} in {key!r}"
        fail(Kind.UNREADABLE, file, found, f"{key!r} to be a list of objects", owner)
    return entries


def brief(value: Any) -> str:
    """Return a value as text of at most 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
