"""JSON annotation files and the lists of entries in them."""

import json
from pathlib import Path
from typing import Any

from src.data.problems import Kind, Problem, refuse

Entry = dict[str, Any]


def read_json(file: Path) -> Any:
    """Return the content of a JSON file, with or without a byte order mark. Raises DataError."""
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:  # no JSON, no Unicode, or a number of too many digits
        refuse([Problem(Kind.UNREADABLE, str(file), "", f"not readable as JSON ({error})", "a file that is whole")])


def entries_of(document: Any, key: str, file: Path) -> list[Entry]:
    """Return the list of entries under a key of a document. Raises DataError if there is none."""
    expected = f"COCO's layout, an object with {key!r}, a list of objects"
    if not isinstance(document, dict):
        refuse([Problem(Kind.UNREADABLE, str(file), "", f"holds a {type(document).__name__}", expected)])
    if key not in document:
        keys = ", ".join(map(repr, [*document][:6])) or "nothing"
        refuse([Problem(Kind.UNREADABLE, str(file), "", f"has no {key!r}; it has {keys}", expected)])
    return checked_entries(document[key], key, file)


def checked_entries(entries: Any, key: str, file: Path, owner: str = "") -> list[Entry]:
    """Return `entries` if it is a list of objects. Raises DataError, which names the `owner` of the list, if not."""
    if not isinstance(entries, list) or not all(type(entry) is dict for entry in entries):
        wrong = entries
        if isinstance(entries, list):
            wrong = next(entry for entry in entries if type(entry) is not dict)
        found = f"has {type(wrong).__name__} {brief(wrong)} in {key!r}"
        refuse([Problem(Kind.UNREADABLE, str(file), owner, found, f"{key!r} to be a list of objects")])
    return entries


def brief(value: Any) -> str:
    """A value as a message shows it, at most 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
