"""A progress bar over all optimiser steps, since training is one stream of samples."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from src.records.scores import NOTHING


class StepProgressBar(TQDMProgressBar):
    """Lightning's bar without epochs."""

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Start the bar."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description("training")

    def get_metrics(self, trainer: Trainer, task: LightningModule) -> dict[str, Any]:
        """Return the scores beside the bar, without Lightning's version number and with a text for NaN."""
        shown = {name: value for name, value in super().get_metrics(trainer, task).items() if name != "v_num"}
        return {name: NOTHING if name.startswith("val/") and value != value else value for name, value in shown.items()}
