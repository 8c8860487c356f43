"""What the jobs of a sweep are given, as far as it is known before they run, and what they may share."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf


def sweep_of(overrides: list[str], multirun: bool, primary: str) -> list[str] | None:
    """What a sweep is given, by its file and by what was typed, which goes first; None where there is no sweep.

    Raises ValueError for values that its sweeper does not take.
    """
    hydra = compose(primary, next(jobs(overrides)), return_hydra_config=True).hydra
    if not (multirun or hydra.mode is RunMode.MULTIRUN):
        return None
    typed = {one.get_key_element() for one in OverridesParser.create().parse_overrides(overrides)}
    params = {str(key): str(value) for key, value in (hydra.sweeper.get("params") or {}).items() if key not in typed}
    if empty := [key for key, value in params.items() if not value.strip()]:
        raise ValueError(f"hydra.sweeper.params.{empty[0]}: has no values, expected some, for example 1,2,3")
    swept = [*(f"{key}={value}" for key, value in params.items()), *overrides]
    if hydra.sweeper._target_.endswith(".BasicSweeper"):
        for override, one in zip(swept, OverridesParser.create().parse_overrides(swept), strict=True):
            if one.is_interval_sweep():
                raise ValueError(f"{override}: expected a list of values; an interval takes hydra/sweeper=search")
    return swept


def jobs(overrides: list[str]) -> Iterator[list[str]]:
    """What jobs of a sweep are given: the first value of everything, then each further value once."""
    choices = [values for values in map(sweep_values, overrides) if values]
    first = [values[0] for values in choices]
    yield first
    for i, values in enumerate(choices):
        yield from ([*first[:i], other, *first[i + 1 :]] for other in values[1:])


def sweep_values(override: str) -> list[str]:
    """An override for each value of a sweep, none for what only Hydra can list, the override itself otherwise.

    Of an interval its ends. Raises ValueError for a sweep without values.
    """
    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return [override]
    if parsed.value_type is ValueType.GLOB_CHOICE_SWEEP:
        return []
    value: Any = parsed.value()
    values = [value.start, value.end] if parsed.is_interval_sweep() else list(parsed.sweep_string_iterator())
    if not values:
        raise ValueError(f"{override}: has no values, expected some, for example 1,2,3")
    return [f"{parsed.get_key_element()}={one}" for one in values]


def check_subdir(cfg: DictConfig) -> None:
    """Refuse a name of job folders, which only Hydra's basic launcher gives them."""
    subdir = OmegaConf.to_container(cfg.hydra.sweep)["subdir"]  # type: ignore[call-overload, index]
    if subdir != "${hydra.job.num}" and not cfg.hydra.launcher._target_.endswith(".BasicLauncher"):
        raise ValueError(
            f"hydra.sweep.subdir={subdir}: jobs are named by what they are given; expected hydra.sweep.dir=FOLDER for "
            "the folder of them all, or hydra/launcher=basic"
        )


def check_alone(cfg: DictConfig) -> None:
    """Refuse several devices to jobs that share one process, as those of Hydra's basic launcher do."""
    if not cfg.hydra.launcher._target_.endswith(".BasicLauncher"):
        return
    trainer = cfg.trainer
    many = trainer.accelerator != "cpu" and torch.cuda.device_count() > 1
    settings = {
        "devices": str(trainer.devices) not in (("1",) if many else ("1", "auto")),
        "strategy": re.search("ddp|fsdp|deepspeed", str(trainer.strategy).lower()),
    }
    for name in (name for name, wrong in settings.items() if wrong):
        raise ValueError(
            f"trainer.{name}={trainer[name]}: jobs of hydra/launcher=basic share one process, expected one device for "
            "all (trainer.devices=1); take hydra/launcher=processes, or run each job without -m"
        )
