"""What is odd about the data of a run: told in a line for each kind, and listed in its folder."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import lightning

from src.records.csv_file import write_problems


class DataProblems(lightning.Callback):
    """Says what was read differently than it is written, warned of or skipped, before the first step.

    Args:
        file: a CSV file of all of it, as `python -m src.validate_data` writes it; none where there is nothing.
    """

    def __init__(self, file: str):
        self.file = Path(file)
        self.told: list[tuple[str, Any]] = []

    def on_fit_start(self, trainer: lightning.Trainer, task: Any) -> None:
        """Before training."""
        self.tell(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, task: Any) -> None:
        """Before scoring alone; later there is nothing new."""
        self.tell(trainer)

    def on_predict_start(self, trainer: lightning.Trainer, task: Any) -> None:
        """Before labelling."""
        self.tell(trainer)

    def tell(self, trainer: lightning.Trainer) -> None:
        """Tell and list what has come up since the last time."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero or data.problems == self.told:
            return
        new, self.told = data.problems[len(self.told) :], list(data.problems)
        write_problems(self.told, self.file)
        for line in lines(new, data.num_skipped):
            print(f"warning: {line}; listed in {self.file}", file=sys.stderr)
        for logger in trainer.loggers:
            logger.log_hyperparams({f"skipped/{split}": number for split, number in data.num_skipped.items()})


def lines(problems: list[tuple[str, Any]], num_skipped: dict[str, int]) -> list[str]:
    """What is told: how many images are skipped and why, and of each other kind the first."""
    said = []
    for split, number in num_skipped.items():
        why = Counter(str(one.kind) for of, one in problems if of == split and one.breaks)
        if why:
            reasons = ", ".join(f"{kind} ({times})" for kind, times in why.items())
            some = f"{number} image{'s' * (number > 1)} skipped" if number else "left out"  # before images were counted
            said.append(f"{split}: {some} for a flaw: {reasons}")
    first: dict[tuple[str, Any], list[Any]] = {}
    for split, one in problems:
        if not one.breaks and not one.common:
            first.setdefault((split, one.kind), []).append(one)
    for (split, _), ones in first.items():
        said.append(f"{split}: {ones[0]}" + f" (and {len(ones) - 1} more of its kind)" * (len(ones) > 1))
    return said
