"""Two processes do together what one does alone."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from src.config.build import build_run
from src.config.saved_settings import saved_overrides
from tests.helpers import SMALL_MODEL, TINY_SHAPES, launch
from tests.offline_runs import offline_runs

pytestmark = pytest.mark.slow

SETTINGS = [
    "+experiment=proscale_shapes",
    *TINY_SHAPES,
    *SMALL_MODEL,
    "image_size=[64,64]",
    "exits=[1,3]",
    "trainer.max_steps=60",  # enough for scores well above zero on any machine
    "batch_size=4",
    "lr=3e-3",
    "validate_every=60",
    "data.train.num_scenes=100",
    "data.val.num_scenes=5",  # three for one process and two for the other
    "data.eval_batch_size=1",
    "task.postprocess.object_threshold=0.0",
    "task.postprocess.overlap_threshold=0.0",
    "trainer.log_every_n_steps=1",
    # What two processes do not share: statistics of a batch, the mean over queries, and points drawn at random.
    "model.backbone.freeze_norm=true",
    "task.criterion.no_object_weight=1.0",
    "task.criterion.num_points=2048",
]
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave behind after training, under the folder of all runs."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        launch("src.train", *SETTINGS, *TWO, f"paths.runs={runs}", "logger=wandb")
    return runs


def the_file(runs: Path, name: str) -> Path:
    """The only one of this name."""
    (file,) = runs.rglob(name)
    return file


def scores(runs: Path) -> dict[str, Any]:
    """By exit, as a run leaves them."""
    return json.loads(the_file(runs, "scores.json").read_text())["exits"]


def gradients(runs: Path) -> list[float]:
    """The norms of the gradients, step by step."""
    with the_file(runs, "metrics.csv").open() as file:
        return [float(row["train/grad_norm"]) for row in csv.DictReader(file) if row["train/grad_norm"]]


def test_training_leaves_one_run_folder(together: Path) -> None:
    """One folder, with one log, one table of scores and one newest checkpoint."""
    assert len(list(together.glob("*/*"))) == 1
    for name in ("metrics.csv", "scores.json", "last.ckpt"):
        assert the_file(together, name).is_file()


def test_two_processes_are_one_run_of_wandb(together: Path) -> None:
    """Finished, with the scores that the run folder has."""
    (run,) = offline_runs(together)
    assert run.exits == [0]
    logged = {name: value for entry in run.logged for name, value in entry.items()}
    for depth, row in scores(together).items():
        assert logged[f"val/pq/exit{depth}"] == pytest.approx(row["pq"], rel=1e-6)


def test_the_first_step_is_that_of_one_process(
    together: Path, configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """The same global batch gives the same gradient, but for the points that are drawn."""
    task, data, trainer = build_run(configure(*SETTINGS, "trainer.max_steps=1"))
    trainer.fit(task, data)
    assert gradients(together)[0] == pytest.approx(gradients(tmp_path)[0], rel=0.05)


@pytest.mark.parametrize("distil", [0, 1])
def test_a_parent_draws_its_exits_as_one_process_does(
    distil: int, configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """Two processes that each run as deep as the step says, and train what one trains, to the end."""
    parent = [*SETTINGS, "task.exits_per_step=1", "task.alpha=k", "exits=[1,2,3]", "trainer.max_steps=6", "lr=1e-9"]
    parent.append(f"task.distil={distil}")
    launch("src.train", *parent, *TWO, f"paths.runs={tmp_path / 'two'}")
    task, data, trainer = build_run(configure(*parent))
    trainer.fit(task, data)
    assert gradients(tmp_path / "two") == pytest.approx(gradients(tmp_path / "run"), rel=0.2)  # points are drawn


def test_scores_are_those_of_one_process(together: Path, configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """Unequal shares of the images, scored while training or afterwards, give the scores of all images at once."""
    checkpoint = the_file(together, "last.ckpt")
    task, data, trainer = build_run(configure(*SETTINGS, f"model.weights={checkpoint}"))
    trainer.validate(task, data, verbose=False)
    alone = scores(tmp_path / "run")
    assert sorted(alone) == ["1", "3"]
    assert all(alone[depth][name] > 0 for depth in alone for name in ("pq", "miou"))
    assert any(alone[depth]["ap"] > 0 for depth in alone)
    launch("src.evaluate", *TWO, f"ckpt_path={checkpoint}", f"paths.runs={tmp_path / 'evaluated'}")
    for several in (together, tmp_path / "evaluated"):
        found = scores(several)
        for depth in alone:
            assert found[depth] == pytest.approx(alone[depth], rel=1e-6, nan_ok=True)


def test_fewer_images_than_processes_are_scored(
    together: Path, configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """The process that has none waits for the other, and the scores are those of one process."""
    checkpoint, one = the_file(together, "last.ckpt"), "data.val.num_scenes=1"
    task, data, trainer = build_run(configure(*SETTINGS, f"model.weights={checkpoint}", one))
    trainer.validate(task, data, verbose=False)
    launch("src.evaluate", *TWO, f"ckpt_path={checkpoint}", f"paths.runs={tmp_path / 'two'}", one)
    alone, two = scores(tmp_path / "run"), scores(tmp_path / "two")
    for depth in alone:
        assert two[depth] == pytest.approx(alone[depth], rel=1e-6, nan_ok=True)


def test_settings_are_taken_up_once(tmp_path: Path) -> None:
    """The second process is started with what the first has taken up from the checkpoint, and adds nothing to it."""
    torch.save({"hyper_parameters": {"overrides": ["+new=1", "dim=32"]}}, file := tmp_path / "last.ckpt")
    first = saved_overrides([f"ckpt_path={file}", "dim=64"])
    assert first == ["+new=1", "dim=32", f"ckpt_path={file}", "dim=64"]
    assert saved_overrides(first) == first
