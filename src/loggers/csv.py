"""metrics.csv of a run, also of one that resumes in its folder."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment

from src.records.csv_file import write_csv
from src.system.atomic import explain_full_disk


class RunLog(CSVLogger):
    """Keeps the rows of the run that this one resumes; rows of repeated steps are replaced."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer."""
        if self._experiment is None:
            self._experiment = RowsWriter(self.log_dir)
        return self._experiment


class RowsWriter(ExperimentWriter):
    """Appends rows to a file; for new columns, and for a run that resumes, it rewrites the file atomically."""

    def __init__(self, log_dir: str) -> None:
        file = Path(log_dir) / self.NAME_METRICS_FILE
        self.before = rows_of(file) if file.is_file() else []  # of the run that this one may resume
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        """Keep the file, which Lightning would remove: it belongs to the run that resumes."""

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        """Add a row; the first one determines which old rows stay."""
        if self.before:
            kept = [row for row in self.before if step is not None and comes_before(row, metrics_dict, step)]
            self.metrics_keys = sorted({name for row in kept for name in row})
            write_csv(kept, Path(self.metrics_file_path), self.metrics_keys)
            self.before = []
        super().log_metrics(metrics_dict, step)

    def save(self) -> None:
        """Write what was logged. Raises OSError that names a full disk."""
        try:
            super().save()
        except OSError as error:
            raise explain_full_disk(error, Path(self.metrics_file_path)) from error

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        file = Path(self.metrics_file_path)
        write_csv(rows_of(file), file, fieldnames)


def comes_before(row: dict[str, str], metrics: dict[str, Any], step: int) -> bool:
    """Whether an old row was logged before new metrics; a validation has the step of the training row before it."""
    if int(row["step"]) == step and any(name.startswith("val/") for name in metrics):
        return not any(name.startswith("val/") for name in row)
    return int(row["step"]) < step


def rows_of(file: Path) -> list[dict[str, str]]:
    """Return the complete rows of a log that have a step, without empty cells; the last row may be cut short."""
    with open(file, newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if None not in row.values()]
    return [{name: value for name, value in row.items() if value} for row in rows if row.get("step", "").isdecimal()]
