"""`last.ckpt`, from which a run resumes, and checkpoint files that are either complete or absent."""

import math
import signal
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from src.system.signals import Interrupted, signals
from src.weights.files import write_tensors

STOP, SAVE = 2, 1  # what a process wants at the end of a step; the largest of all processes counts


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that an older file is kept until then."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint. Raises OSError, which names a full disk, if it cannot be written."""
        write_tensors(checkpoint, Path(path))


class LastCheckpoint(Checkpoint):
    """Saves the state of training: before and after validations, every few minutes, and when training ends.

    A signal ends training after the current step, with that step saved. An error between two steps loses no step. The
    state is saved before a validation because it may take long and need much memory.

    Args:
        file: `last.ckpt` of a run folder.
        minutes: time between two saves; null: do not save by time.
        steps: optimiser steps between two saves; null: do not save by steps.
        whole_epochs: save after whole epochs only, for data that resumes at epochs only (see GateData).
    """

    def __init__(
        self, file: str, minutes: float | None = None, steps: int | None = None, whole_epochs: bool = False
    ) -> None:
        self.file = Path(file)
        self.seconds = math.inf if minutes is None else 60 * minutes
        self.steps = math.inf if steps is None else steps
        self.whole_epochs = whole_epochs
        self.saved_step = 0
        self.saved_at = time.monotonic()
        self.in_step = True  # whether the state is half old and half new, as it also is while a checkpoint is restored

    @property
    def best_model_path(self) -> str:
        """The file that loggers ask a checkpoint callback for."""
        return str(self.file)

    def save(self, trainer: Trainer) -> None:
        """Flush the loggers, which may not be behind the checkpoint, and write the file."""
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.file)
        self.saved_step, self.saved_at = trainer.global_step, time.monotonic()
        for logger in trainer.loggers if trainer.is_global_zero else ():
            logger.after_save_checkpoint(self)  # type: ignore[arg-type]  # it needs only best_model_path

    def on_train_start(self, trainer: Trainer, task: Any) -> None:
        """Take over the signals from Lightning, and start to count."""
        signals.watch()
        signals.hold()
        self.in_step = False
        self.saved_step, self.saved_at = trainer.global_step, time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, task: Any, batch: Any, batch_idx: int) -> None:
        """Save or stop if wanted: between two steps, when the first one is logged."""
        if not self.whole_epochs and batch_idx % trainer.accumulate_grad_batches == 0:
            by_steps = trainer.global_step - self.saved_step >= self.steps
            by_time = time.monotonic() - self.saved_at >= self.seconds
            self.pause(trainer, SAVE if by_steps or by_time else 0)
        self.in_step = True
        signals.hold()

    def on_train_batch_end(self, trainer: Trainer, task: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Note whether the step is complete, or continues with another batch."""
        self.in_step = self.whole_epochs or trainer.fit_loop.epoch_loop._should_accumulate()

    def pause(self, trainer: Trainer, wanted: int) -> None:
        """Save if any process wants it. Raises Interrupted after saving if any process has received a signal."""
        self.in_step = False
        wanted = STOP if signals.received else wanted
        if trainer.world_size > 1:
            wish = torch.tensor(wanted, device=trainer.strategy.root_device)
            wanted = int(trainer.strategy.reduce(wish, reduce_op="max"))  # type: ignore[arg-type]
        if wanted:
            self.save(trainer)
        if wanted == STOP:
            raise Interrupted(signals.received or signal.SIGTERM)

    def on_validation_start(self, trainer: Trainer, task: Any) -> None:
        """Save before a validation, which a signal may then end at once."""
        if saves(trainer) and not self.whole_epochs:
            self.save(trainer)
            signals.release()

    def on_validation_end(self, trainer: Trainer, task: Any) -> None:
        """Save the results of a validation."""
        if saves(trainer):
            signals.hold()
            self.save(trainer)
            if self.whole_epochs:
                self.pause(trainer, 0)

    def on_train_epoch_end(self, trainer: Trainer, task: Any) -> None:
        """Save an epoch that did not end with a validation."""
        if self.whole_epochs and self.saved_step != trainer.global_step:
            self.pause(trainer, SAVE)

    def on_train_end(self, trainer: Trainer, task: Any) -> None:
        """Save the last step."""
        if self.saved_step != trainer.global_step:
            self.save(trainer)

    def on_fit_end(self, trainer: Trainer, task: Any) -> None:
        signals.release()

    def on_exception(self, trainer: Trainer, task: Any, exception: BaseException) -> None:
        """Save finished steps if no step was interrupted and no process would wait for others."""
        if trainer.world_size == 1 and not self.in_step and trainer.global_step != self.saved_step:
            self.save(trainer)
        if isinstance(exception, Interrupted) and self.saved_step:
            exception.kept = f"{self.file} is of step {self.saved_step}"


def saves(trainer: Trainer) -> bool:
    """Whether the current validation is part of a training, and not the check before it."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking
