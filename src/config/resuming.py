"""Which settings may change when a training resumes from a checkpoint."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.config.differences import MISSING, SHOWN, Difference, below, differences
from src.config.overrides import spell
from src.config.saved_settings import HOW, optional
from src.records.flatten import flatten

# Settings that define a run: a training that resumes keeps them.
KEPT = (
    *("lr", "batch_size", "seed", "segmentation", "schedule", "exits", "dim", "num_queries"),
    *("beta", "budget_gflops", "budget_ms", "budget_per_image"),
    *("model", "data.train", "data.augment", "data.holdout", "data", "task"),
)
FREE = (  # exceptions: settings of validations, and of places that may have moved
    *("data.val", "data.resize", "data.eval_batch_size", "data.root", "data.table", "data.num_classes", "data.seed"),
    *("task.postprocess", "task.instance_truth", "task.patience", "task.seed", "task.optimizer.lr"),
)


def check_resumed(cfg: DictConfig, file: Path, kept: Mapping[str, Any], step: int) -> None:
    """Report the settings that take effect from here on; raise ValueError for one that defines the checkpoint's run."""
    before = kept.get("config")
    if not before:
        return
    now: Any = OmegaConf.to_container(cfg, resolve=True)
    changes = [
        change
        for change in differences(without_root(before), without_root(now), HOW)
        if change.before is not MISSING or change.name.startswith("data") or optional(change.name, before)
    ]
    changes.sort(key=lambda change: next((i for i, name in enumerate(KEPT) if below(change.name, [name])), len(KEPT)))
    for change in changes:
        if below(change.name, KEPT) and not below(change.name, FREE):
            raise ValueError(refusal(change, now, file))
    if changes:
        said = ", ".join(f"{one.name}={spell(one.now)} (before: {spell(one.before)})" for one in changes[:SHOWN])
        print(f"from step {step} on: {said}", file=sys.stderr)


def refusal(change: Difference, now: Mapping[str, Any], file: Path) -> str:
    """Return why a run cannot resume with a changed setting, and what to do."""
    new = f"or start a new run from its weights: model.weights={file}"
    if change.name == "task.scheduler.total_iters" and change.now == now["trainer"]["max_steps"]:
        return (
            f"trainer.max_steps={change.now}: ckpt_path={file} was trained for a learning rate that reaches zero at "
            f"step {change.before}; expected that, {new}"
        )
    kept = "without it" if change.before is MISSING else f"with {spell(change.before)}"
    return (
        f"{change.name}={spell(change.now)}: ckpt_path={file} resumes {kept}, as it was "
        f"trained; leave {change.name} out, {new}"
    )


def without_root(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their dotted names, with ROOT for the folder of the data, which may have moved."""
    root = (settings.get("data") or {}).get("root")
    return {
        name: value.replace(str(root), "ROOT", 1) if root and isinstance(value, str) else value
        for name, value in flatten(settings).items()
    }
