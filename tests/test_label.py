"""The command that labels: whose settings it takes, and what it refuses."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from src.config.saved_settings import saved_overrides
from src.exit_table.table import finished_shards, read_table
from src.label import check_trained, recorded
from tests.config.test_saved_settings import trained
from tests.helpers import ROOT, SMALL_MODEL, TINY_SHAPES, launch


def checkpoint(folder: Path, exits: list[int] | None) -> Path:
    """A file with the settings of a parent and nothing else."""
    config = {"exits": exits, "schedule": [0, 0, 6]}
    overrides = ["+experiment=eco_parent_shapes", "name=mine", "dim=32"]
    torch.save({"hyper_parameters": {"config": config, "overrides": overrides}}, file := folder / "last.ckpt")
    return file


def test_exits_the_parent_never_trained_are_refused(tmp_path: Path) -> None:
    """Some of those it was trained for are fine; without exits it was trained for the last layer."""
    file = str(checkpoint(tmp_path, [2, 4, 6]))
    check_trained(file, [2, 6], depth=6)
    with pytest.raises(ValueError, match=r"exits=\[2, 3\]: .*last.ckpt was trained for \[2, 4, 6\]"):
        check_trained(file, [2, 3], depth=6)
    file = str(checkpoint(tmp_path, None))
    check_trained(file, [6], depth=6)
    with pytest.raises(ValueError, match=r"was trained for \[6\]"):
        check_trained(file, [5, 6], depth=6)


@pytest.mark.slow
def test_a_typed_experiment_takes_the_place_of_the_parents(tmp_path: Path) -> None:
    """Its other settings stay, its name does not; without that wish a typed experiment stands alone."""
    file = trained(tmp_path, "+experiment=eco_parent_shapes", "name=mine", "dim=32")
    typed = ["+experiment=eco_oracle_shapes", f"ckpt_path={file}"]
    assert saved_overrides(typed, below_experiment=True) == ["dim=32", *typed]
    assert saved_overrides(typed) == typed


def test_settings_that_older_tables_lack_are_recorded_where_they_matter() -> None:
    """So that a table of today's defaults goes on with shards of before; a table of losses depends on the criterion."""
    task = {"postprocess": {"num_instances": 9}, "quality": "score", "mirrored": False, "criterion": {"mask_weight": 3}}
    rest = {"model": {"dim": 8}, "data": {}, "segmentation": "panoptic", "trainer": {"precision": 32}}
    before = recorded(OmegaConf.create({"task": {"postprocess": {"num_instances": 9}}, **rest}))
    assert recorded(OmegaConf.create({"task": task, **rest})) == before
    other = recorded(OmegaConf.create({"task": {**task, "quality": "loss", "mirrored": True}, **rest}))
    more = {"task.quality": "loss", "task.mirrored": True, "task.criterion": {"mask_weight": 3}}
    assert other == {**before, **more}


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_equal(tmp_path: Path) -> None:
    """With kill -9 after some shards; the same command leaves the table of an unbroken run, bit for bit."""
    launch("src.train", "+experiment=eco_parent_shapes", *TINY_SHAPES, *SMALL_MODEL, f"hydra.run.dir={tmp_path}")
    settings = [f"ckpt_path={tmp_path}/checkpoints/last.ckpt", "data.train.num_scenes=60", "data.eval_batch_size=2"]
    settings += ["shard_size=2", "task.postprocess.object_threshold=0.0"]
    launch("src.label", *settings, f"table={tmp_path}/whole")
    command = [sys.executable, "-m", "src.label", *settings, f"table={tmp_path}/broken"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    while process.poll() is None and len(finished_shards(tmp_path / "broken")) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= len(finished_shards(tmp_path / "broken")) < 30
    launch("src.label", *settings, f"table={tmp_path}/broken")
    whole, again = read_table(tmp_path / "whole"), read_table(tmp_path / "broken")
    assert again.names == whole.names
    for ours, expected in ((again.quality, whole.quality), (again.inputs["mean32"], whole.inputs["mean32"])):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)
