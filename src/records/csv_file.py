"""Rows of several kinds as one CSV file."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.system.atomic import atomic_write

HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # of characters, but for what stands for bytes of file names


def whole(value: Any) -> Any:
    """A value as a file can hold it: halves of characters, which JSON may have, as what stands for the unreadable."""
    return HALVES.sub("\ufffd", value) if isinstance(value, str) else value


def write_csv(rows: Sequence[Mapping[str, Any]], file: Path, columns: Sequence[str] = ()) -> None:
    """Write rows, whole or not at all: the columns given, then every other that one has, in the order they come up."""
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    with atomic_write(file) as part, open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.DictWriter(stream, list(names))
        writer.writeheader()
        writer.writerows({name: whole(value) for name, value in row.items()} for row in rows)


def write_problems(problems: Sequence[tuple[str, Any]], file: Path) -> None:
    """Write what is wrong with data, each with its split ("train" or "val")."""
    rows = [{"split": split, "breaks": one.breaks, **one._asdict()} for split, one in problems]
    write_csv(rows, file, ("split", "breaks", "kind", "file", "id", "found", "expected"))
