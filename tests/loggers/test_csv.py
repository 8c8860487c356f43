"""The log of a run that goes on."""

import csv
from pathlib import Path

from src.loggers.csv import RunLog


def log(folder: Path, *entries: tuple[int, dict[str, float]]) -> list[dict[str, str]]:
    """What the file has after a run logged this."""
    logger = RunLog(str(folder), "", "")
    for step, metrics in entries:
        logger.log_metrics(metrics, step)
    logger.save()
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_a_run_that_goes_on_keeps_its_rows(tmp_path: Path) -> None:
    """Up to the step where it goes on; what was logged beyond the checkpoint is logged anew, other columns too."""
    log(tmp_path, (9, {"loss": 3.0}), (19, {"loss": 2.0, "norm": 5.0}), (29, {"loss": 1.0}))
    rows = log(tmp_path, (19, {"loss": 2.5}), (29, {"loss": 1.5, "pq": 40.0}))
    assert rows == [
        {"step": "9", "loss": "3.0"},
        {"step": "19", "loss": "2.5"},
        {"step": "29", "loss": "1.5", "pq": "40.0"},
    ]


def test_a_run_that_starts_anew_keeps_nothing(tmp_path: Path) -> None:
    """Its first step comes before all others."""
    log(tmp_path, (9, {"loss": 3.0}), (19, {"loss": 2.0}))
    assert log(tmp_path, (0, {"loss": 4.0})) == [{"step": "0", "loss": "4.0"}]


def test_a_row_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    """As a run that was killed leaves it."""
    log(tmp_path, (9, {"loss": 3.0}))
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("2.")
    assert log(tmp_path, (19, {"loss": 2.0})) == [{"step": "9", "loss": "3.0"}, {"step": "19", "loss": "2.0"}]
