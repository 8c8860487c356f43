"""A list of the exit of every image."""

from pathlib import Path
from typing import Any

import torch.distributed
from lightning import Callback, Trainer

from src.records.csv_file import write_csv


class ExitList(Callback):
    """Writes id, name, exit, GFLOPs and, with a budget of milliseconds, ms of every image whose exit a gate chose.

    Args:
        file: a CSV file.
    """

    def __init__(self, file: str):
        self.file = Path(file)
        self.rows: list[tuple[int, str, int, float, float | None]] = []

    def on_validation_batch_end(self, trainer: Trainer, task: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Keep the rows of one batch; without a gate there are none."""
        if "gflops" in outputs:
            of_images = zip(batch.image_ids, batch.names, outputs["answers"], strict=True)
            self.rows += [(id_, name, answer.exit, answer.gflops, answer.ms) for id_, name, answer in of_images]

    def on_validation_end(self, trainer: Trainer, task: Any) -> None:
        """Write the rows of all processes."""
        parts: list[Any] = [self.rows]
        if trainer.world_size > 1:
            parts *= trainer.world_size
            torch.distributed.all_gather_object(parts, self.rows)
        rows = sorted(row for part in parts for row in part)
        self.rows = []
        if rows and trainer.is_global_zero:
            names = ("image_id", "name", "exit", "gflops", "ms")
            write_csv([dict(zip(names, row, strict=True)) for row in rows], self.file)
