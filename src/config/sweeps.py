"""The overrides of a sweep's jobs, as far as they are known before it runs, and settings that its launcher refuses."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from hydra.core.override_parser.types import ValueType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from src.config.overrides import parsed


def sweep_of(hydra: DictConfig, overrides: list[str], multirun: bool) -> list[str] | None:
    """Return the overrides of a sweep, those of its file first; None if this is no sweep.

    `hydra` is Hydra's own configuration, composed for one job. An override of the command line replaces that of the
    file. Raises ValueError for values that its sweeper refuses.
    """
    if not (multirun or hydra.mode is RunMode.MULTIRUN):
        return None
    typed = {one.get_key_element() for one in map(parsed, overrides)}
    params = {str(key): str(value) for key, value in (hydra.sweeper.get("params") or {}).items() if key not in typed}
    if empty := [key for key, value in params.items() if not value.strip()]:
        raise ValueError(f"hydra.sweeper.params.{empty[0]}: has no values, expected some, for example 1,2,3")
    swept = [*(f"{key}={value}" for key, value in params.items()), *overrides]
    if hydra.sweeper._target_.endswith(".BasicSweeper"):
        for override in swept:
            if parsed(override).is_interval_sweep():
                raise ValueError(f"{override}: expected a list of values; an interval takes hydra/sweeper=search")
    return swept


def jobs(overrides: list[str]) -> Iterator[list[str]]:
    """Yield overrides of jobs that have every value at least once: the first of all, then each other one in turn."""
    choices = [values for values in map(sweep_values, overrides) if values]
    first = [values[0] for values in choices]
    yield first
    for i, values in enumerate(choices):
        yield from ([*first[:i], other, *first[i + 1 :]] for other in values[1:])


def sweep_values(override: str) -> list[str]:
    """Return an override for each value that one sweeps over: of an interval for its ends, none for a glob.

    An override that sweeps over nothing is returned as it is. Raises ValueError for a sweep without values.
    """
    sweep = parsed(override)
    if not sweep.is_sweep_override():
        return [override]
    if sweep.value_type is ValueType.GLOB_CHOICE_SWEEP:
        return []
    value: Any = sweep.value()
    values = [value.start, value.end] if sweep.is_interval_sweep() else list(sweep.sweep_string_iterator())
    if not values:
        raise ValueError(f"{override}: has no values, expected some, for example 1,2,3")
    return [f"{sweep.get_key_element()}={one}" for one in values]


def check_launcher(cfg: DictConfig, trains: bool) -> None:
    """Raise ValueError for a setting that does not work with the launcher of a sweep.

    Only jobs of Hydra's basic launcher have folders of any name. They share one process, so they cannot train on
    several devices.
    """
    if not cfg.hydra.launcher._target_.endswith(".BasicLauncher"):
        subdir = OmegaConf.to_container(cfg.hydra.sweep)["subdir"]  # type: ignore[call-overload, index]
        if subdir != "${hydra.job.num}":
            raise ValueError(
                f"hydra.sweep.subdir={subdir}: jobs are named by their overrides; expected hydra.sweep.dir=FOLDER for "
                "the folder of them all, or hydra/launcher=basic"
            )
    elif trains:
        trainer = cfg.trainer
        several = trainer.accelerator != "cpu" and torch.cuda.device_count() > 1
        wrong = {
            "devices": str(trainer.devices) not in (("1",) if several else ("1", "auto")),
            "strategy": re.search("ddp|fsdp|deepspeed", str(trainer.strategy).lower()),
        }
        for name in (name for name in wrong if wrong[name]):
            raise ValueError(
                f"trainer.{name}={trainer[name]}: jobs of hydra/launcher=basic share one process, expected one device "
                "for all (trainer.devices=1); take hydra/launcher=processes, or run each job without -m"
            )
