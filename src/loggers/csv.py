"""metrics.csv of a run, also of one that goes on in its folder."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only


class RunLog(CSVLogger):
    """Keeps what is there already; rows of steps that are made again give way to the new ones."""

    before: list[dict[str, str]] | None = None  # rows of the run that this one may go on

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer, which begins a file of its own: what is in the old one is read before."""
        if self.before is None:
            file = Path(self.log_dir) / "metrics.csv"
            self.before = rows_of(file) if file.is_file() else []
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Add a row; the first one tells which of the old ones stay."""
        writer = self.experiment
        if self.before:
            kept = [row for row in self.before if step is not None and int(row["step"]) < step]
            writer.metrics += [{name: value for name, value in row.items() if value} for row in kept]
        self.before = []
        super().log_metrics(metrics, step)


def rows_of(file: Path) -> list[dict[str, str]]:
    """Whole rows of a log that have a step; the last one may be cut short."""
    with open(file, newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if None not in row.values()]
    return [row for row in rows if row.get("step", "").isdecimal()]
