"""Labels of images are written into the exit table during labelling."""

from typing import Any

from lightning import Callback, Trainer

from src.loggers.wandb import WandbRun


class KeepLabels(Callback):
    """Hands the output of the exit oracle to the exit table of the data module."""

    def on_predict_batch_end(
        self, trainer: Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Keep the labels of one batch."""
        trainer.datamodule.labelling.keep(batch_idx, batch.image_ids, batch.names, outputs)  # type: ignore[attr-defined]

    def on_predict_end(self, trainer: Trainer, task: Any) -> None:
        """Log the whole table to W&B, if it is a logger of this run."""
        trainer.strategy.barrier()
        labelling: Any = trainer.datamodule.labelling  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            if isinstance(logger, WandbRun):
                logger.make("exit_table", labelling.folder)
