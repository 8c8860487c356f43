"""Rows of several kinds as one CSV file."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.atomic import atomic_write


def write_csv(rows: Sequence[Mapping[str, Any]], file: Path, columns: Sequence[str] = ()) -> None:
    """Write rows, whole or not at all: the columns given, then every other that one has, in the order they come up."""
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    with atomic_write(file) as part, open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.DictWriter(stream, list(names))
        writer.writeheader()
        writer.writerows(rows)
