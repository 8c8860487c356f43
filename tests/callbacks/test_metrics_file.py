"""The table of what was logged goes on where a run does."""

import csv
from pathlib import Path

import pytest

from src.callbacks.metrics_file import MetricsFile


def log(folder: Path, *steps: int) -> list[tuple[int, str]]:
    """What the table holds after a run has logged some steps."""
    logger = MetricsFile(str(folder), name="", version="")
    logger.log_hyperparams({})
    for step in steps:
        logger.log_metrics({"loss": 10 * step + len(steps)}, step)
    logger.save()
    with (folder / "metrics.csv").open() as file:
        return [(int(row["step"]), row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([2, 3], [(0, "4"), (1, "14"), (2, "22"), (3, "32")]),  # steps after the checkpoint are logged anew
        ([0], [(0, "1")]),  # from scratch
        ([4], [(0, "4"), (1, "14"), (2, "24"), (3, "34"), (4, "41")]),
    ],
)
def test_a_run_that_goes_on_keeps_what_came_before(
    second: list[int], expected: list[tuple[int, str]], tmp_path: Path
) -> None:
    """And nothing that it logs again; a row that was cut short is left out."""
    assert log(tmp_path, 0, 1, 2, 3) == [(0, "4"), (1, "14"), (2, "24"), (3, "34")]
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4")
    assert log(tmp_path, *second) == expected
