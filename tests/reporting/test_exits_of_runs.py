"""Where images left, as reports read it."""

import os
from pathlib import Path

from src.records.csv_file import write_csv
from src.reporting.exits import Left, exits_of


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Also of an image whose file name is no text."""
    name = os.fsdecode(b"caf\xe9, two.png")
    rows = [
        {"image_id": 0, "name": name, "exit": 2, "gflops": 0.5},
        {"image_id": 1, "name": "b", "exit": 1, "gflops": 0.25},
    ]
    write_csv(rows, tmp_path / "exits.csv")
    assert exits_of(tmp_path) == [Left(name, 2, 0.5), Left("b", 1, 0.25)]


def test_nothing_of_a_missing_or_damaged_file(tmp_path: Path) -> None:
    """One row that is cut off leaves out all: a report of half of the images would look whole."""
    assert exits_of(tmp_path) == []
    for damaged in ("image_id,name,exit,gflops\n0,a,1,0.5\n1,b,", "image_id,na", "\0"):
        (tmp_path / "exits.csv").write_text(damaged)
        assert exits_of(tmp_path) == []
