"""The first step that is not finite is kept, and runs again alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from scripts import replay
from src.config.build import build_run
from src.tasks import bad_step
from tests.helpers import SMALL_MODEL, TINY_SHAPES

BROKEN = ["+experiment=proscale_shapes", *TINY_SHAPES, *SMALL_MODEL, "image_size=[64,64]", "lr=1e20", "task.patience=3"]
PARTS = ["trainer.max_steps=8", "validate_every=8", "batch_size_per_device=1"]


def diverge(cfg: DictConfig) -> Any:
    """The task of a training that the first step breaks."""
    task, data, trainer = build_run(cfg)
    with pytest.raises(FloatingPointError):
        trainer.fit(task, data)
    return task


@pytest.mark.slow
def test_a_bad_step_is_replayed(
    configure: Callable[..., DictConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the folder alone: each part of the step, and what is not finite first."""
    diverge(configure(*BROKEN, *PARTS))
    folder = tmp_path / "run/bad_step"
    said = capsys.readouterr().err
    assert said.count(f"python -m scripts.replay {folder}") == 1  # of three bad steps
    replay.main([str(folder), "--accelerator=cpu"])
    shown = capsys.readouterr().out
    assert shown.startswith("step 1, seed 0, cpu, precision 32-true")
    assert "process 0, part 2 of 2: images " in shown
    assert "  class/exit3/layer0: nan" in shown
    assert "first output of a module that is not finite: model.backbone" in shown
    assert "first gradient of a parameter that is not finite: model." in shown


@pytest.mark.slow
def test_a_replay_is_the_step(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """Run from what is kept, a step has the loss that it had in training."""
    task, data, trainer = build_run(configure(*BROKEN, "trainer.max_steps=1", "lr=1e-3", "batch_size_per_device=1"))
    parts: list[Any] = []

    def keep(optimizer: torch.optim.Optimizer, **_: Any) -> None:
        parts.extend(task.parts)
        bad_step.keep_bad_step(task, optimizer, parts)

    task.configure_gradient_clipping = keep
    trainer.fit(task, data)
    (folder,) = tmp_path.rglob("bad_step")
    state, share = (torch.load(folder / name, weights_only=True) for name in (bad_step.STATE, "process0.pt"))
    again = replay.task_of(state["hyper_parameters"]).train()
    again.load_state_dict(state["state_dict"])
    losses: list[Tensor] = []
    for number, batch in enumerate(share["batches"]):
        again.seed_step(share["step"], number, 0)
        losses.append(again.loss(replay.batch_of(batch), share["step"])[0])
    assert torch.equal(torch.stack(losses), torch.stack([loss for _, loss in parts]))


@pytest.mark.slow
def test_a_full_disk_does_not_end_the_training(
    configure: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told, and training goes on for as long as its patience has it."""

    def fail(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(bad_step, "write_tensors", fail)
    assert diverge(configure(*BROKEN, *PARTS)).bad_streak == 3
    assert "cannot be kept: the disk is full" in capsys.readouterr().err


def test_what_is_no_such_folder_is_named(tmp_path: Path) -> None:
    """In one line."""
    with pytest.raises(SystemExit, match=r"no process0.pt; expected the folder bad_step of a run"):
        replay.main([str(tmp_path)])
