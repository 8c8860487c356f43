"""Where each image of a run with a gate left the encoder: its exits.csv."""

import csv
from pathlib import Path
from typing import NamedTuple


class Left(NamedTuple):
    """An image that left at an exit, and what it cost."""

    name: str
    exit: int
    gflops: float


def exits_of(folder: Path) -> list[Left]:
    """Return where the images of a run left; empty if exits.csv is missing or damaged."""
    try:
        with open(folder / "exits.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [Left(row["name"], int(row["exit"]), float(row["gflops"])) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return []
