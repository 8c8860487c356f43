"""The best checkpoints of a run by one score, taken along where a run goes on in another folder."""

import re
import shutil
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from src.system.atomic import atomic_write, check_writable
from src.system.terminal import say

OURS = {
    "auto_insert_metric_name": False,  # it would write equals signs, and Hydra cannot read those in paths
    "save_on_train_epoch_end": False,
    "enable_version_counter": False,
}


class BestCheckpoint(ModelCheckpoint):
    """Saves the checkpoints with the best score, after validations; without any score so far, the newest.

    Args:
        dirpath: the folder.
        monitor, mode: the score, and whether the best is the `max` or the `min`.
        usual: the monitor and mode whose file is called best.ckpt; others have the score in their name.
        filename: instead of that name, without .ckpt.
        save_top_k: how many are kept; -1: all. Unless it is one, the step is in the name: best_step400.ckpt.
        others: as Lightning's ModelCheckpoint.
    """

    def __init__(
        self,
        dirpath: str,
        monitor: str,
        mode: str,
        usual: tuple[str, str] | list[str],
        filename: str | None = None,
        save_top_k: int = 1,
        **others: Any,
    ):
        name = filename or file_name(monitor, mode, tuple(usual))
        if save_top_k not in (0, 1) and "{step}" not in name:
            name += "_step{step}"
        super().__init__(
            dirpath=dirpath,
            filename=name,
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            **OURS | others,
        )
        self.resumed: Path | None = None  # the folder of the checkpoint that the run goes on from

    @property
    def state_key(self) -> str:
        """As Lightning's own callback calls itself, whose best score older checkpoints hold."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Refuse, before training, what could not be saved. Raises ValueError or OSError."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero:
            check_folder(Path(str(self.dirpath)))

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note where the run comes from: its folder may have been moved since."""
        self.resumed = Path(str(trainer.ckpt_path)).absolute().parent if trainer.ckpt_path else None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best scores and bring their files here; of a file that is gone, the score is forgotten."""
        kept: dict[str, Tensor] = {}
        for file, score in state_dict.get("best_k_models", {}).items():
            place = self.bring(Path(file))
            if place is None:
                say(f"{file}: is gone, the best by {self.monitor} ({float(score):.4g}) is kept from here on anew")
            else:
                kept[str(place)] = torch.as_tensor(score)
        ranked = sorted(kept, key=lambda file: float(kept[file]), reverse=self.mode == "max")
        ranked = ranked if self.save_top_k == -1 else ranked[: self.save_top_k]
        self.best_k_models = {file: kept[file] for file in ranked}
        if ranked:
            self.best_model_path, self.best_model_score = ranked[0], kept[ranked[0]]
            self.kth_best_model_path, self.kth_value = ranked[-1], kept[ranked[-1]]

    def check_monitor_top_k(self, trainer: lightning.Trainer, current: Tensor | None = None) -> bool:
        """Whether to keep a checkpoint of a score; nan, of nothing to score, takes the place of nan only."""
        if current is None or not current.isnan() or self.save_top_k < 1:
            return super().check_monitor_top_k(trainer, current)
        if not self.best_k_models:
            say(f"{self.monitor} has nothing to score: until it has, the newest checkpoints are kept as the best")
        return len(self.best_k_models) < self.save_top_k or bool(torch.as_tensor(self.kth_value).isinf())

    def bring(self, file: Path) -> Path | None:
        """The place of a best checkpoint in this run's folder, where it is copied to; None if it is gone."""
        there = [place for place in (file, *([self.resumed / file.name] if self.resumed else [])) if place.is_file()]
        if not there:
            return None
        here = Path(str(self.dirpath)) / file.name
        if there[0].resolve() != here.resolve() and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            with atomic_write(here) as part:
                shutil.copyfile(there[0], part)
        return here


def file_name(monitor: str, mode: str, usual: tuple[str, ...]) -> str:
    """`best` of the usual score; of another `best_val_pq`, or `best_val_loss_min` if less is better."""
    if (monitor, mode) == usual:
        return "best"
    return f"best_{re.sub(r'[^A-Za-z0-9]+', '_', monitor)}{'_min' if mode == 'min' else ''}"


def check_folder(folder: Path) -> None:
    """Refuse a folder in which no file can be made. Raises OSError."""
    try:
        check_writable(folder)
    except OSError as error:
        raise OSError(
            f"{folder}: checkpoints cannot be written there ({error}); set paths.run or paths.runs"
        ) from error
