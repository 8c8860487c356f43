"""JSON files, as annotations are kept in."""

import json
from pathlib import Path
from typing import Any

from src.data.problems import Kind, Problem, refuse

Entry = dict[str, Any]


def read_json(file: Path) -> Any:
    """What a JSON file holds. Raises DataError for one that cannot be read."""
    try:
        return json.loads(file.read_bytes())  # which knows byte order marks
    except (ValueError, RecursionError) as error:  # text that is no JSON or no Unicode, numbers without end
        refuse([Problem(Kind.UNREADABLE, str(file), "", f"not readable as JSON ({error})", "a file that is whole")])
