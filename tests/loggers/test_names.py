"""What W&B takes: names of 64 letters, and the command of a sweep's agent."""

from pathlib import Path

import yaml
from omegaconf import DictConfig

from src.loggers.wandb import fitting


def test_a_long_name_is_cut_and_told_from_others() -> None:
    assert len(fitting("x" * 90)) == 64
    assert fitting("x" * 90) != fitting("x" * 91)


def test_the_example_of_a_sweep_composes(configure) -> None:
    """Each value as the agent types it, which is as Python prints it."""
    sweep = yaml.safe_load((Path(__file__).parents[2] / "conf/wandb_sweep.yaml").read_text())
    typed = [f"{name}={one['values'][0]}" for name, one in sweep["parameters"].items() if "values" in one]
    cfg: DictConfig = configure(*[part for part in sweep["command"] if part.startswith(("+", "logger"))], *typed)
    assert list(cfg.schedule) == [1, 1, 1]
