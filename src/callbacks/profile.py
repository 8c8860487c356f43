"""The table of a profiler: +trainer.profiler=simple."""

from typing import Any

import lightning
from lightning.pytorch.utilities import rank_zero_only


class ProfileTable(lightning.Callback):
    """Prints the table, which Lightning would only log at a level that is not shown."""

    @rank_zero_only
    def teardown(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Print what was measured, unless the profiler writes a file."""
        profiler: Any = trainer.profiler  # type: ignore[attr-defined]
        if not profiler.filename and (table := profiler.summary()):
            print(table)
