"""The best checkpoints of a run by one score, copied along if a run resumes in another folder."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from src.system.atomic import atomic_write, check_writable
from src.system.terminal import say

DEFAULTS = {
    "auto_insert_metric_name": False,  # its equals signs would break overrides of Hydra that contain the path
    "save_on_train_epoch_end": False,
    "enable_version_counter": False,
}


class BestCheckpoint(ModelCheckpoint):
    """Saves the checkpoints with the best score after validations; as long as the score is NaN, the newest.

    Args:
        monitor, mode: the score, and whether its `max` or `min` is the best.
        usual: the monitor and mode whose file is called best.ckpt; files of others have the score in their name.
        filename: replaces this name; without .ckpt.
        save_top_k: number of checkpoints; -1: all. Unless it is 1, the step is in the name: best_step400.ckpt.
        others: arguments of Lightning's ModelCheckpoint.
    """

    def __init__(
        self,
        dirpath: str,
        monitor: str,
        mode: str,
        usual: Sequence[str],
        filename: str | None = None,
        save_top_k: int = 1,
        **others: Any,
    ):
        name = filename or file_name(monitor, mode, usual)
        if save_top_k not in (0, 1) and "{step}" not in name:
            name += "_step{step}"
        others = DEFAULTS | others
        super().__init__(dirpath, name, monitor=monitor, mode=mode, save_top_k=save_top_k, **others)
        self.resumed: Path | None = None  # folder of the checkpoint that the run resumes

    @property
    def state_key(self) -> str:
        """The key of Lightning's own callback, under which older checkpoints keep the best scores."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises OSError before training if checkpoints cannot be written."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero:
            check_folder(Path(str(self.dirpath)))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note the folder of the resumed checkpoint, which may have been moved since it was written."""
        self.resumed = Path(str(trainer.ckpt_path)).absolute().parent if trainer.ckpt_path else None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best scores and copy their files here; forget the scores of files that are missing."""
        kept: dict[str, Tensor] = {}
        for file, score in state_dict.get("best_k_models", {}).items():
            place = self.bring(Path(file))
            if place is None:
                best = f"the best checkpoint by {self.monitor} ({float(score):.4g})"
                say(f"{file}: {best} is missing; from here on, the best of later validations is saved")
            else:
                kept[str(place)] = torch.as_tensor(score)
        ranked = sorted(kept, key=lambda file: float(kept[file]), reverse=self.mode == "max")
        if self.save_top_k != -1:
            ranked = ranked[: self.save_top_k]
        self.best_k_models = {file: kept[file] for file in ranked}
        if ranked:
            self.best_model_path, self.best_model_score = ranked[0], kept[ranked[0]]
            self.kth_best_model_path, self.kth_value = ranked[-1], kept[ranked[-1]]

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether to save a checkpoint with this score; NaN (nothing to score) replaces NaN only."""
        if current is None or not current.isnan() or self.save_top_k < 1:
            return super().check_monitor_top_k(trainer, current)
        if not self.best_k_models:
            say(f"{self.monitor} has nothing to score; the newest checkpoints are saved until there is a score")
        return len(self.best_k_models) < self.save_top_k or bool(torch.as_tensor(self.kth_value).isinf())

    def bring(self, file: Path) -> Path | None:
        """Copy a best checkpoint into this run's folder, and return its place there; None if it is missing."""
        places = [file, self.resumed / file.name] if self.resumed else [file]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            return None
        here = Path(str(self.dirpath)) / file.name
        if found.resolve() != here.resolve() and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            with atomic_write(here) as part:
                shutil.copyfile(found, part)
        return here


def file_name(monitor: str, mode: str, usual: Sequence[str]) -> str:
    """Return `best` for the usual score; for others `best_val_pq`, or `best_val_loss_min` if the minimum is best."""
    if [monitor, mode] == list(usual):
        return "best"
    return f"best_{re.sub(r'[^A-Za-z0-9]+', '_', monitor)}{'_min' if mode == 'min' else ''}"


def check_folder(folder: Path) -> None:
    """Raise OSError for a folder that cannot be written."""
    try:
        check_writable(folder)
    except OSError as error:
        raise OSError(
            f"{folder}: checkpoints cannot be written there ({error}); set paths.run or paths.runs"
        ) from error
