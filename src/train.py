"""Train a model: python -m src.train +experiment=proscale_shapes."""

import sys
from contextlib import nullcontext
from pathlib import Path

import hydra
import lightning
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from src.config.build import build_run
from src.config.checkpoints import find_progress, is_finished, read_checkpoint
from src.config.command_line import CONF, run
from src.config.errors import report_errors
from src.config.resuming import check_resumed
from src.config.saved_settings import resumed
from src.config.search_path import overrides_of
from src.records import run_folder
from src.records.run_folder import locked


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
@report_errors
def train(cfg: DictConfig) -> None:
    """Train, from a checkpoint if one is given, and note in the run folder that the run has finished."""
    folder = Path(cfg.paths.run)
    checkpoint = find_progress(cfg)
    if is_finished(cfg, checkpoint):
        print(f"{checkpoint}: has all {cfg.trainer.max_steps} steps, nothing is left to train", file=sys.stderr)
        return
    cfg.ckpt_path = checkpoint
    if checkpoint is not None:
        content = read_checkpoint(Path(checkpoint))
        check_resumed(cfg, Path(checkpoint), content.get("hyper_parameters", {}), content["global_step"])
    first: bool = rank_zero_only.rank == 0  # type: ignore[attr-defined]  # of several processes
    with locked(folder, "hydra.run.dir", "a training") if first else nullcontext():
        run_folder.begin(folder)
        task, data, trainer = build_run(cfg, overrides_of(HydraConfig.get()))
        trainer.fit(task, data, ckpt_path=cfg.ckpt_path, weights_only=True)
        if trainer.is_global_zero:
            why = why_it_ended(trainer)
            run_folder.finish(folder, why, trainer.global_step)
            print(f"{why}; {folder}")


def why_it_ended(trainer: lightning.Trainer) -> str:
    """Return the reason why a training ended, as a sentence."""
    step, callbacks = trainer.global_step, trainer.callbacks  # type: ignore[attr-defined]
    if 0 <= trainer.max_steps <= step:
        return f"training ended after all {step} steps"
    for callback in callbacks:
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            return f"training ended early, at step {step}: {callback.stopping_reason_message.split(' Signaling')[0]}"
        if isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0:
            return f"training ended at step {step}: the time of trainer.max_time is over"
    return f"training ended after {trainer.current_epoch} epochs, at step {step}"


if __name__ == "__main__":
    run(train, resumed(sys.argv[1:]))
