"""How far a run is: one bar over all optimiser steps, since training here is one stream of samples."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import TQDMProgressBar

from src.records.scores import NOTHING


class StepProgressBar(TQDMProgressBar):
    """Lightning's bar without its word of epochs."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Begin the bar."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description("training")

    def get_metrics(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> dict[str, Any]:
        """What stands behind the bar: not Lightning's number of the run, nor a score of nothing."""
        shown = {name: value for name, value in super().get_metrics(trainer, task).items() if name != "v_num"}
        return {name: NOTHING if name.startswith("val/") and value != value else value for name, value in shown.items()}
