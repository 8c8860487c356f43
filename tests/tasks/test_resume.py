"""A run that was stopped and resumed is the run that was never stopped."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from src.config.build import build_run
from src.config.checkpoints import find_checkpoint, find_progress, is_finished
from src.records.run_folder import finish
from tests.helpers import SMALL_MODEL, TINY_SHAPES, launch

SETTINGS = [
    "+experiment=proscale_shapes",
    *TINY_SHAPES,
    *SMALL_MODEL,
    "image_size=[64,64]",
    "validate_every=10",
    "batch_size_per_device=1",  # two batches a step
    "+model.backbone.options.drop_path_rate=0.5",
    "trainer.max_steps=20",
    "trainer.log_every_n_steps=1",
    "task.scheduler.total_iters=20",
    "callbacks.checkpoint.filename='{step}'",
    "+callbacks.checkpoint.save_top_k=-1",
    "+callbacks.checkpoint.auto_insert_metric_name=false",
]
Losses = dict[int, dict[str, str]]


def read(run: Path) -> Losses:
    """What was logged of each training step."""
    logged: Losses = {}
    with (run / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            kept = {name: value for name, value in row.items() if name.startswith(("train", "lr")) and value}
            logged.setdefault(int(row["step"]), {}).update(kept)
    return logged


def resume(runs: Path, checkpoint: str, *overrides: str) -> Losses:
    """Train on in a fresh process."""
    launch("src.train", *SETTINGS, *overrides, f"paths.runs={runs}", f"ckpt_path={checkpoint}")
    return read(max(runs.glob("*/*"), key=lambda run: run.stat().st_mtime))


@pytest.mark.slow
@pytest.mark.parametrize("stopped", ["at its last step", "in between"])
def test_ten_and_ten_steps_are_twenty(stopped: str, configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """Losses, gradients and learning rates of a resumed run are those of the unbroken one, with distillation too."""

    def fit(run: Path, *overrides: str) -> None:
        task, data, trainer = build_run(configure(*SETTINGS, f"paths.run={run}", *overrides))
        trainer.fit(task, data)

    unbroken, first = tmp_path / "unbroken", tmp_path / "runs" / "proscale_shapes" / "first"
    if stopped == "in between":
        parent = ["exits=[1,2,3]", "task.exits_per_step=1", "task.distil=1"]
        fit(unbroken, *parent)
        resumed = resume(tmp_path / "runs", str(unbroken / "checkpoints" / "10.ckpt"), *parent)
    else:
        fit(unbroken)
        fit(first, "trainer.max_steps=10")
        resumed = resume(tmp_path / "runs", "last")
    expected = read(unbroken)
    assert sorted(resumed) == list(range(10, 20))
    assert {"train/loss", "train/grad_norm", "lr-AdamW/pg1"} <= set(resumed[10])
    assert resumed == {step: expected[step] for step in resumed}


@pytest.mark.slow
def test_a_run_goes_on_in_its_own_folder(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """With `ckpt_path=auto`: begun anew first, then continued to the end of the unbroken run; one table has it all."""
    unbroken, run = tmp_path / "unbroken", tmp_path / "seed=0,schedule=[1,1,1]"
    for folder, steps in ((unbroken, 20), (run, 10)):
        cfg = configure(*SETTINGS, f"trainer.max_steps={steps}", "ckpt_path=auto")
        cfg.paths.run = str(folder)
        assert find_progress(cfg) is None
        task, data, trainer = build_run(cfg)
        trainer.fit(task, data)
    launch("src.train", *SETTINGS, f"hydra.run.dir='{run}'", "ckpt_path=auto")
    assert read(run) == read(unbroken)
    states = [torch.load(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (run, unbroken)]
    torch.testing.assert_close(*states, rtol=0, atol=0)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not weights"])
def test_a_last_checkpoint_that_is_not_whole_is_said(
    content: bytes, configure: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whoever wrote it was killed: `auto` starts from the beginning, or from what is whole beside it, and says so."""
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert find_progress(configure("ckpt_path=auto")) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert f"ckpt_path={file}" in line
    assert "no checkpoint beside it is whole" in line
    others = {"best": 4, "best_step2": 2, ".last.part": 9}
    for name, step in others.items():
        content = {"state_dict": {"x": torch.ones(9)}, "pytorch-lightning_version": "2.6.6", "global_step": step}
        torch.save(content, file.with_name(f"{name}.ckpt"))
    assert find_progress(configure("ckpt_path=auto")) == str(file.with_name("best.ckpt"))
    assert "best.ckpt is taken, of step 4" in capsys.readouterr().err
    newest = find_checkpoint(configure(f"paths.runs={tmp_path.parent}", f"name={tmp_path.name}", "ckpt_path=last"))
    assert newest == str(file.with_name("best.ckpt"))


def test_a_checkpoint_whose_bytes_were_changed_is_damaged(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """In the middle too, where it still opens."""
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    content = {"state_dict": {"x": torch.zeros(9999)}, "pytorch-lightning_version": "2.6.6", "global_step": 3}
    torch.save(content, file)
    assert find_progress(configure("ckpt_path=auto")) == str(file)
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    assert find_progress(configure("ckpt_path=auto")) is None


@pytest.mark.parametrize(("step", "finished"), [(19, False), (20, True)])
def test_a_run_that_has_all_its_steps_is_finished(
    step: int, finished: bool, configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """With `auto`, where the same command comes again; a checkpoint that is named is trained on from."""
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.6", "global_step": step}, file)
    for typed, expected in (("auto", finished), (file, False)):
        finish(file.parents[1], "all steps", step)
        cfg = configure("trainer.max_steps=20", f"ckpt_path={typed}")
        assert find_progress(cfg) == str(file)
        assert is_finished(cfg, str(file)) == expected


def test_last_is_the_newest_run_of_this_name(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """Of several runs the newest checkpoint; none, or a path that is not there, is said."""
    settings = [f"paths.runs={tmp_path}", "name=mine"]
    for run, time in (("mine/a", 3), ("mine/b", 2), ("other/c", 4)):
        file = tmp_path / run / "checkpoints" / "last.ckpt"
        file.parent.mkdir(parents=True)
        torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.6"}, file)
        os.utime(file, (time, time))
    assert find_checkpoint(configure(*settings)) is None
    assert find_checkpoint(configure(*settings, "ckpt_path=last")) == str(tmp_path / "mine/a/checkpoints/last.ckpt")
    with pytest.raises(FileNotFoundError, match="ckpt_path=last"):
        find_checkpoint(configure(f"paths.runs={tmp_path}", "name=nothing", "ckpt_path=last"))
    with pytest.raises(FileNotFoundError, match=r"ckpt_path=no\.ckpt: no such file"):
        find_checkpoint(configure(*settings, "ckpt_path=no.ckpt"))
