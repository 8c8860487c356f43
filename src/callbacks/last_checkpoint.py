"""`last.ckpt`, from where a run goes on, and the checkpoint files that are whole or not there."""

import signal
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from src.system.signals import Interrupted, signals
from src.weights.files import write_tensors

STOP, SAVE = 2, 1  # what a process wants at the end of a step; the greatest of all processes counts


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their place and renames them; a file that was there stays until then."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint. Raises OSError if it cannot be written, naming a disk that is full."""
        write_tensors(checkpoint, Path(path))


class LastCheckpoint(Checkpoint):
    """Keeps the state of training in `file`: around validations, every few minutes, and when training ends.

    A signal ends training after the step that runs, with that step in `file`, and what fails between two steps loses
    none. A validation may take long and need much memory: the state is saved before it, too.

    Args:
        file: `last.ckpt` of a run folder.
        minutes: save when so many have passed since the last time; null: do not.
        steps: save after every so many optimiser steps; null: do not.
        whole_epochs: save after whole epochs only, for data whose order is known by epochs (see GateData).
    """

    def __init__(
        self, file: str, minutes: float | None = None, steps: int | None = None, whole_epochs: bool = False
    ) -> None:
        self.file = Path(file)
        self.seconds = float("inf") if minutes is None else 60 * minutes
        self.steps, self.whole_epochs = steps, whole_epochs
        self.saved_step = 0
        self.saved_at = time.monotonic()
        self.in_step = True  # where the state is half old and half new; while a checkpoint is restored it is, too

    @property
    def best_model_path(self) -> str:
        """What loggers ask a checkpoint callback for."""
        return str(self.file)

    def save(self, trainer: lightning.Trainer) -> None:
        """Write the file, after what loggers have kept in memory: they may not know less than it."""
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.file)
        self.saved_step, self.saved_at = trainer.global_step, time.monotonic()
        for logger in trainer.loggers if trainer.is_global_zero else ():
            logger.after_save_checkpoint(self)  # type: ignore[arg-type]  # what they need of a checkpoint callback

    # ---- when

    def on_train_start(self, trainer: lightning.Trainer, task: Any) -> None:
        """Catch the signals that Lightning has begun to catch, and begin to count."""
        signals.watch()
        signals.hold()
        self.in_step = False
        self.saved_step, self.saved_at = trainer.global_step, time.monotonic()

    def on_train_batch_start(self, trainer: lightning.Trainer, task: Any, batch: Any, batch_idx: int) -> None:
        """Between two steps, when loggers have been told of the first one: a moment to save, or to end."""
        if not self.whole_epochs and batch_idx % trainer.accumulate_grad_batches == 0:
            self.pause(trainer, SAVE if self.is_due(trainer.global_step) else 0)
        self.in_step = True
        signals.hold()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step has ended, or is to go on with another batch."""
        self.in_step = self.whole_epochs or trainer.fit_loop.epoch_loop._should_accumulate()

    def pause(self, trainer: lightning.Trainer, wanted: int) -> None:
        """Save if that is wanted. Raises Interrupted where a signal has been waiting, with the state saved."""
        self.in_step = False
        wanted = agreed(trainer, STOP if signals.received else wanted)
        if wanted:
            self.save(trainer)
        if wanted == STOP:
            raise Interrupted(signals.received or signal.SIGTERM)

    def is_due(self, step: int) -> bool:
        """Whether so many steps or minutes have passed since the file was written."""
        by_steps = self.steps is not None and step - self.saved_step >= self.steps
        return by_steps or time.monotonic() - self.saved_at >= self.seconds

    def on_validation_start(self, trainer: lightning.Trainer, task: Any) -> None:
        """Save before a validation, which signals may then end at once."""
        if saves(trainer) and not self.whole_epochs:
            self.save(trainer)
            signals.release()

    def on_validation_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """Save what came of a validation, too."""
        if saves(trainer):
            signals.hold()
            self.save(trainer)
            if self.whole_epochs:
                self.pause(trainer, 0)

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """Save epochs that no validation ended."""
        if self.whole_epochs and self.saved_step != trainer.global_step:
            self.pause(trainer, SAVE)

    def on_train_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """Save the last step."""
        if self.saved_step != trainer.global_step:
            self.save(trainer)

    def on_fit_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """All is saved."""
        signals.release()

    def on_exception(self, trainer: lightning.Trainer, task: Any, exception: BaseException) -> None:
        """Save what is finished, where no step was cut in two and no process would wait for others."""
        if trainer.world_size == 1 and not self.in_step and trainer.global_step != self.saved_step:
            self.save(trainer)
        if isinstance(exception, Interrupted) and self.saved_step:
            exception.kept = f"{self.file} is of step {self.saved_step}"


def saves(trainer: lightning.Trainer) -> bool:
    """Whether this is a validation of a training."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def agreed(trainer: lightning.Trainer, wanted: int) -> int:
    """What all processes do: what one of them wants most."""
    if trainer.world_size == 1:
        return wanted
    wish = torch.tensor(wanted, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(wish, reduce_op="max"))  # type: ignore[arg-type]
