"""What may change when a training goes on from a checkpoint, and what a run in a folder began with."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.config.differences import SHOWN, Difference, Missing, below, differences, spelled
from src.config.saved_settings import HOW, optional
from src.records.flatten import flatten

# Settings by which a training is the run that it is: one that goes on keeps them.
KEPT = (
    *("lr", "batch_size", "seed", "segmentation", "schedule", "exits", "dim", "num_queries", "beta", "budget_gflops"),
    *("model", "data.train", "data.augment", "data.holdout", "data", "task"),
)
FREE = (  # of these: what is only looked at in validations, or lies elsewhere now
    *("data.val", "data.resize", "data.eval_batch_size", "data.root", "data.table", "data.num_classes", "data.seed"),
    *("task.postprocess", "task.instance_truth", "task.patience", "task.seed", "task.optimizer.lr"),
)


def check_resumed(cfg: DictConfig, file: Path, kept: Mapping[str, Any], step: int) -> None:
    """Refuse to go on as another run than the checkpoint's; say what takes effect from here on.

    Raises:
        ValueError: a setting that the checkpoint overrules, or by which the run would be another one.
    """
    if not kept.get("config"):
        return
    now: Any = OmegaConf.to_container(cfg, resolve=True)
    before = kept["config"]
    changes = [
        change
        for change in differences(moved(before), moved(now), HOW)
        if not isinstance(change.before, Missing) or change.name.startswith("data") or optional(change.name, before)
    ]
    changes.sort(key=lambda change: next((i for i, name in enumerate(KEPT) if below(change.name, [name])), len(KEPT)))
    for change in changes:
        if below(change.name, KEPT) and not below(change.name, FREE):
            raise ValueError(refusal(change, now, file))
    if changes:
        said = ", ".join(f"{one.name}={spelled(one.now)} (before: {spelled(one.before)})" for one in changes[:SHOWN])
        print(f"from step {step} on: {said}", file=sys.stderr)


def refusal(change: Difference, now: Mapping[str, Any], file: Path) -> str:
    """Why a run cannot go on with a setting, and what to do."""
    new = f"or start a new run from its weights: model.weights={file}"
    if change.name == "task.scheduler.total_iters" and change.now == now["trainer"]["max_steps"]:
        return (
            f"trainer.max_steps={change.now}: ckpt_path={file} was trained for a learning rate that reaches zero at "
            f"step {change.before}; expected that, {new}"
        )
    kept = "without it" if isinstance(change.before, Missing) else f"with {spelled(change.before)}"
    return (
        f"{change.name}={spelled(change.now)}: ckpt_path={file} goes on {kept}, as it was "
        f"trained; leave {change.name} out, {new}"
    )


def moved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose paths of data do not say where the data lie, which may be elsewhere now."""
    root = (settings.get("data") or {}).get("root")
    return {
        name: value.replace(str(root), "ROOT", 1) if root and isinstance(value, str) else value
        for name, value in flatten(settings).items()
    }
