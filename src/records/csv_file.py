"""Write rows with different columns as one CSV file."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.system.atomic import atomic_write

SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # all but those that stand for bytes of file names


def write_csv(rows: Sequence[Mapping[str, Any]], file: Path, columns: Sequence[str] = ()) -> None:
    """Write rows atomically: the given columns first, then all others in the order of their first appearance."""
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    with atomic_write(file) as part, open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.DictWriter(stream, list(names))
        writer.writeheader()
        writer.writerows({name: encodable(value) for name, value in row.items()} for row in rows)


def encodable(value: Any) -> Any:
    """Replace lone surrogates, which JSON may contain, by the replacement character."""
    return SURROGATES.sub("\ufffd", value) if isinstance(value, str) else value


def write_problems(problems: Sequence[tuple[str, Any]], file: Path) -> None:
    """Write problems of a data set, each with its split ("train" or "val")."""
    rows = [{"split": split, "breaks": problem.breaks, **problem._asdict()} for split, problem in problems]
    write_csv(rows, file, ("split", "breaks", "kind", "file", "id", "found", "expected"))
