"""JSON files, as annotations are kept in."""

import json
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


def read_json(file: Path) -> Any:
    """What a JSON file holds. Raises ValueError for one that cannot be read."""
    try:
        return json.loads(file.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable as JSON ({error}); is the file whole?") from error
