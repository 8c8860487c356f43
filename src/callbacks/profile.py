"""The table of a profiler: +trainer.profiler=simple."""

from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only


class ProfileTable(Callback):
    """Prints the profiler's table, which Lightning logs at a level that is not shown."""

    @rank_zero_only
    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Print the table, unless the profiler writes it to a file."""
        profiler: Any = trainer.profiler  # type: ignore[attr-defined]
        if not profiler.filename and (table := profiler.summary()):
            print(table)
