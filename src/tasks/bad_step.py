"""Save the first step of a run whose loss or gradients are not finite, to be replayed alone."""

import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from src.weights.files import write_tensors

FOLDER, STATE = "bad_step", "state.ckpt"


def keep_bad_step(task: Any, optimizer: torch.optim.Optimizer, parts: list[tuple[Any, Tensor]]) -> None:
    """Save the weights before a non-finite step and the batches of each process in the run folder, once.

    A non-finite step is not applied, so the current weights are those before it. In float16 only a non-finite loss
    counts: gradients overflow until the loss scale has settled. If a file cannot be written, training goes on.

    Args:
        parts: batches of the step, each with its loss.
    """
    trainer = task.trainer
    folder = Path(trainer.default_root_dir) / FOLDER
    file = folder / f"process{trainer.global_rank}.pt"
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    if file.exists() or (scaled and all(bool(loss.isfinite()) for _, loss in parts)):
        return
    step = {"step": task.global_step, "seed": task.seed, "rank": trainer.global_rank, "precision": trainer.precision}
    try:
        write_tensors({**step, "batches": [plain(batch) for batch, _ in parts]}, file)
        if not trainer.is_global_zero:
            return
        state = {
            "global_step": task.global_step,
            "hyper_parameters": dict(task.hparams),
            "optimizer_states": [optimizer.state_dict()],
            "pytorch-lightning_version": lightning.__version__,
            "state_dict": task.state_dict(),
        }
        write_tensors(state, folder / STATE)
    except OSError as error:
        print(f"the first non-finite step cannot be kept: {error}", file=sys.stderr)
        return
    print(
        f"step {task.global_step}: the first whose loss or gradients are not finite; it was skipped and saved in "
        f"{folder}; replay it with: python -m scripts.replay {folder}",
        file=sys.stderr,
    )


def plain(record: Any) -> Any:
    """Convert records to dictionaries and move tensors to the CPU, so that torch loads them without running code."""
    if isinstance(record, Tensor):
        return record.cpu()
    if hasattr(record, "_asdict"):
        return {name: plain(value) for name, value in record._asdict().items()}
    return [plain(one) for one in record] if isinstance(record, list) else record
