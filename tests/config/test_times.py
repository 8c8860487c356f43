"""Which file of times a budget in milliseconds goes by."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from src.config.build import CPU
from src.config.times import times_for
from src.records.latency_table import LatencyTable, Row, update
from src.system.machine import machine_of


def settings(budget: float | None = 9, latency: str | None = None, weights: str | None = None) -> Any:
    task = {"budget_ms": budget}
    return OmegaConf.create({"task": task, "budget_ms": budget, "latency": latency, "model": {"weights": weights}})


def write(file: Path, ms: float) -> None:
    row = Row((64, 64), 1, 1.0, ms, ms, ms, 3)
    update(file, LatencyTable(machine_of(CPU), "torch 2.9", "float32", "2026-11-27", [row]))


def test_the_run_folder_of_the_weights_or_of_the_parent_or_a_file(tmp_path: Path) -> None:
    """A named file before the parent's, and that before the weights'."""
    ours, parents = (str(tmp_path / name / "checkpoints" / "best.ckpt") for name in ("ours", "parent"))
    write(tmp_path / "ours/latency.json", 1)
    write(tmp_path / "parent/latency.json", 2)
    write(tmp_path / "mine.json", 3)
    found = [
        times_for(settings(weights=ours), CPU, "32-true"),
        times_for(settings(weights=ours), CPU, "32-true", parents),
        times_for(settings(latency=str(tmp_path / "mine.json"), weights=ours), CPU, "32-true", parents),
    ]
    assert [one["latency"].milliseconds(1, 1.0) for one in found] == [1, 2, 3]


def test_without_a_budget_no_file_is_read() -> None:
    """Whatever `latency` says."""
    assert times_for(settings(budget=None, latency="none.json"), CPU, "32-true") == {}


def test_times_of_another_precision_do_not_count(tmp_path: Path) -> None:
    write(tmp_path / "latency.json", 1)
    cfg = settings(weights=str(tmp_path / "model.ckpt"))
    with pytest.raises(
        ValueError, match=r"no table of this machine \(.*, torch, bfloat16\).*float32; python -m src.measure"
    ):
        times_for(cfg, CPU, "bf16-mixed")


def test_weights_from_elsewhere_need_a_file() -> None:
    """Since nothing says where their run folder is."""
    with pytest.raises(ValueError, match="budget_ms=9: no run folder has the times of hub/name; expected latency=FILE"):
        times_for(settings(weights="hub/name"), CPU, "32-true")
