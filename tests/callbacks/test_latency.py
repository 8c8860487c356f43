"""Milliseconds of an image at each exit."""

import itertools
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from src.callbacks.latency import Latency
from src.config.build import build_run
from src.system.stopwatch import latencies
from tests.helpers import SMALL_MODEL, TINY_SHAPES

SETTINGS = ["+experiment=eco_parent_shapes", *TINY_SHAPES, *SMALL_MODEL, "image_size=[64,64]", "exits=[1,3]"]


def test_the_median_over_rounds_of_the_mean_over_images() -> None:
    """Of made-up seconds, those that warm up left out; in a round all take turns on an image."""
    turns: list[tuple[str, int]] = []
    taken = {"a": iter([9, 1, 2, 6, 9, 3, 6, 8]), "b": itertools.repeat(5)}
    now = [0.0]

    def way(name: str) -> Callable[[torch.Tensor], None]:
        def run(image: torch.Tensor) -> None:
            turns.append((name, int(image)))
            now[0] += next(taken[name])

        return run

    ways = {name: way(name) for name in taken}
    images = iter([torch.tensor(0), torch.tensor(1)])
    assert latencies(ways, images, 3, nullcontext, lambda: now[0]) == {"a": 4, "b": 5}  # of 2, 4 and 7
    assert turns == [(name, image) for image in (0, 1) for _ in range(4) for name in "ab"]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["[default,latency]", "[latency,default]"])
def test_latencies_stand_beside_the_scores(order: str, configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """In whatever order the callbacks are named; no image is kept."""
    settings = [*SETTINGS, f"callbacks={order}", "callbacks.latency.images=2", "callbacks.latency.rounds=1"]
    task, data, trainer = build_run(configure(*settings))
    trainer.validate(task, data, verbose=False)
    exits = json.loads((tmp_path / "run" / "scores.json").read_text())["exits"]
    assert list(exits) == ["1", "3"]
    assert all(row["latency_ms"] > 0 and "pq" in row for row in exits.values())
    (latency,) = (one for one in trainer.callbacks if isinstance(one, Latency))  # type: ignore[attr-defined]
    assert latency.images == []


@pytest.mark.parametrize("setting", ["images=0", "rounds=0", "rounds=many"])
def test_what_cannot_be_timed_is_refused(setting: str, configure: Callable[..., DictConfig]) -> None:
    """Naming the setting."""
    with pytest.raises(ValueError, match=rf"callbacks.latency.{setting}.* whole number from 1"):
        build_run(configure(*SETTINGS, "callbacks=[latency]", f"callbacks.latency.{setting}"))


def test_several_devices_are_refused() -> None:
    """They would wait for each other."""
    trainer: Any = SimpleNamespace(world_size=2)
    with pytest.raises(ValueError, match=r"trainer.devices=2.* expected 1"):
        Latency(images=1, rounds=1).setup(trainer, None, "validate")
