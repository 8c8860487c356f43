"""Scores for TensorBoard, in the run folder: tensorboard --logdir runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from src.loggers.settings import flat, require


class TensorBoardRun(TensorBoardLogger):
    """Event files in `tensorboard/` of the run folder; a run that goes on there adds a file, read as one run.

    Args:
        save_dir: the run folder.
    """

    def __init__(self, save_dir: str):
        require("tensorboard")
        super().__init__(save_dir=save_dir, name="", version="tensorboard")

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Settings as a text each: a whole configuration as JSON, and every single setting by its name."""
        for name, value in dict(params).items():
            content = json.dumps(value, indent=1, default=str)
            self.experiment.add_text(f"settings/{name}", f"```json\n{content}\n```", 0)
        super().log_hyperparams(flat(params))

    @rank_zero_only
    def log_pictures(self, files: list[Path], step: int) -> None:
        """Pictures by their file names."""
        from PIL import Image

        for file in files:
            with Image.open(file) as picture:
                self.experiment.add_image(
                    f"pictures/{file.stem}", np.asarray(picture.convert("RGB")), step, dataformats="HWC"
                )
