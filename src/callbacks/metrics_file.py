"""What was logged, as a table in the run folder."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only


class MetricsFile(CSVLogger):
    """Writes metrics.csv; a run that goes on in its folder keeps the rows of the steps before.

    Arguments are those of Lightning's CSVLogger, which would begin a new file.
    """

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.before = whole_rows(Path(self.log_dir) / "metrics.csv")

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Add a row; the first one tells from which step on rows are written anew."""
        if self.before:
            self.experiment.metrics = [row for row in self.before if int(row["step"]) < (step or 0)]
            self.before = []
        super().log_metrics(metrics, step)


def whole_rows(file: Path) -> list[dict[str, str]]:
    """Rows of a table, less one that was cut short; none where there is no file."""
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        return [row for row in csv.DictReader(lines) if None not in row.values()]
