"""Scores for TensorBoard, in the run folder: tensorboard --logdir runs."""

import json
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from src.loggers.hparams import require, shown


class TensorBoardRun(TensorBoardLogger):
    """Event files in `tensorboard/` of the run folder; a run that resumes there adds a file, shown as one run."""

    def __init__(self, save_dir: str):
        require("tensorboard")
        super().__init__(save_dir=save_dir, name="", version="tensorboard")

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Log every setting by its name, and a whole configuration also as JSON text."""
        if "config" in dict(params):
            content = json.dumps(dict(params)["config"], indent=1, default=str)
            self.experiment.add_text("settings/config", f"```json\n{content}\n```", 0)
        super().log_hyperparams(shown(dict(params)))
