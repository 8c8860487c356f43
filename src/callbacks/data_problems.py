"""Problems in the data of a run: one line for each kind on the terminal, and a list of all in the run folder."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from src.records.csv_file import write_problems


class DataProblems(Callback):
    """Reports before the first step which images are skipped, and which annotations are changed or odd.

    Args:
        file: a CSV file with all problems, as from `python -m src.validate_data`; not written if there are none.
    """

    def __init__(self, file: str):
        self.file = Path(file)
        self.reported: list[tuple[str, Any]] = []

    def report(self, trainer: Trainer, pl_module: Any) -> None:
        """Print and list the problems found since the last report."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero or data.problems == self.reported:
            return
        new, self.reported = data.problems[len(self.reported) :], list(data.problems)
        write_problems(self.reported, self.file)
        for line in lines(new, data.num_skipped):
            print(f"warning: {line}; listed in {self.file}", file=sys.stderr)
        for logger in trainer.loggers:
            logger.log_hyperparams({f"skipped/{split}": number for split, number in data.num_skipped.items()})

    on_fit_start = on_validation_start = on_predict_start = report  # for training, scoring alone and labelling


def lines(problems: list[tuple[str, Any]], num_skipped: dict[str, int]) -> list[str]:
    """Return how many images of each split are skipped and why, and the first problem of every other kind."""
    said = []
    for split, number in num_skipped.items():
        why = Counter(str(one.kind) for of, one in problems if of == split and one.breaks)
        if why:
            reasons = ", ".join(f"{kind} ({times})" for kind, times in why.items())
            some = f"{number} image{'s' * (number > 1)} skipped" if number else "left out"  # before images were counted
            said.append(f"{split}: {some} for a flaw: {reasons}")
    by_kind: dict[tuple[str, Any], list[Any]] = {}
    for split, one in problems:
        if not one.breaks and not one.common:
            by_kind.setdefault((split, one.kind), []).append(one)
    for (split, _), ones in by_kind.items():
        more = f" (and {len(ones) - 1} more of its kind)" if len(ones) > 1 else ""
        said.append(f"{split}: {ones[0]}{more}")
    return said
