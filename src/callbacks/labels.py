"""Labels go to the exit table as they come."""

from typing import Any

import lightning

from src.loggers.wandb import WandbRun


class KeepLabels(lightning.Callback):
    """Hands what a task predicts to the table that its data label."""

    def on_predict_batch_end(
        self,
        trainer: lightning.Trainer,
        task: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep one batch."""
        trainer.datamodule.labelling.keep(batch_idx, batch.image_ids, batch.names, outputs)  # type: ignore[attr-defined]

    def on_predict_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """Tell W&B, if it listens, of the whole table."""
        trainer.strategy.barrier()
        labelling: Any = trainer.datamodule.labelling  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            if isinstance(logger, WandbRun):
                logger.make("exit_table", labelling.folder)
