"""What W&B is told of a parent, its table, its gate and their evaluation, read back from the files of offline runs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.dashboard import VIEWS, workspace
from src.loggers.wandb import KEPT
from tests.helpers import SMALL_MODEL, TINY_SHAPES, launch
from tests.offline_runs import OfflineRun, offline_runs

pytestmark = pytest.mark.slow

PARENT = [
    "+experiment=eco_parent_shapes",
    *TINY_SHAPES,
    *SMALL_MODEL,
    "data.train.num_scenes=40",
    "image_size=[64,64]",
    "task.exits_per_step=all",
    "trainer.log_every_n_steps=1",
    "task.scheduler.total_iters=2",
]
EXITS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where each step of ECO-M2F has left its run."""
    folder = tmp_path_factory.mktemp("eco")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_RUN_GROUP", "sweep_12345678")
        checkpoint, table = folder / "parent/checkpoints/last.ckpt", folder / "table"
        parent = f"ckpt_path={checkpoint}"
        launch("src.train", *PARENT, "logger=wandb", f"hydra.run.dir={folder}/parent")
        launch("src.label", parent, f"table={table}", "logger=wandb", f"hydra.run.dir={folder}/oracle")
        gate = ["+experiment=eco_gate_coco", f"data.table={table}", "trainer.max_epochs=2", "beta=0.02", "batch_size=9"]
        launch("src.train", *gate, "logger=wandb", f"hydra.run.dir={folder}/gate")
        gated = [parent, f"gate={folder}/gate/checkpoints/best.ckpt", "logger=wandb"]
        launch("src.evaluate", *gated, f"hydra.run.dir={folder}/evaluation")
        yield folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> OfflineRun:
    """The run of a detector that was trained."""
    folder = tmp_path_factory.mktemp("detector")
    small = ["trainer.max_steps=2", "trainer.limit_val_batches=1", "data.num_workers=0", "data.train.num_scenes=40"]
    settings = [*small, "model.decoder.num_layers=1", "trainer.enable_progress_bar=false"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        launch("src.train", "+experiment=dino_shapes", *settings, "logger=wandb", f"hydra.run.dir={folder}")
    (run,) = offline_runs(folder)
    return run


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, OfflineRun]:
    """The runs by the type of their job."""
    found = offline_runs(folder)
    assert len(found) == 4
    return {run.run.job_type: run for run in found}


def test_each_job_is_a_run_that_was_finished(runs: dict[str, OfflineRun]) -> None:
    """Of one project and one sweep, with its type, its tags and the configuration."""
    assert set(runs) == {"parent", "oracle", "gate", "evaluation"}
    for run in runs.values():
        assert (run.run.project, run.run.run_group, run.exits) == ("ecoscale", "sweep_12345678", [0])
        assert list(run.run.tags) == [run.config["config"]["name"], "panoptic"]
    assert runs["parent"].config["config"]["schedule"] == [0, 0, 4]
    assert runs["gate"].config["gate"]["beta"] == 0.02


def test_costs_are_told_before_training(runs: dict[str, OfflineRun]) -> None:
    """Of every exit, by parts."""
    config = runs["parent"].config
    totals = [config[f"gflops/exit{depth}/total"] for depth in EXITS]
    assert totals == sorted(totals)
    assert totals[0] < totals[-1]


def test_scores_and_losses_have_one_scheme(runs: dict[str, OfflineRun]) -> None:
    """Scores by exit, and the parts of the loss by exit and decoder layer in a section of their own."""
    names = runs["parent"].names
    assert {f"val/pq/exit{depth}" for depth in EXITS} <= names
    assert {"train/loss", "train/class"} <= names
    layers = {
        f"layers/{part}/exit{depth}/layer{n}" for part in ("class", "mask", "dice") for depth in EXITS for n in (0, 1)
    }
    assert layers <= names
    step = next(one for one in runs["parent"].logged if "train/loss" in one)["trainer/global_step"]
    same = [one for one in runs["parent"].logged if one.get("trainer/global_step") == step]
    entry = {name: value for one in same for name, value in one.items()}
    total = sum(int(name.split("exit")[1][0]) * entry[name] for name in entry if name.startswith("layers/"))
    assert total == pytest.approx(entry["train/loss"], rel=1e-4)  # an exit's weight is its depth


def test_masks_are_layers_with_names(runs: dict[str, OfflineRun]) -> None:
    """Of the truth and of every exit, for every picture; of an evaluation too."""
    for kind in ("parent", "evaluation"):
        entry = next(one for one in runs[kind].logged if "pictures" in one or "pictures/_type" in one)
        layers = nested(entry, "pictures")["all_masks"]
        assert len(layers) == 3
        assert all(set(one) == {"truth", *(f"exit {depth}" for depth in EXITS)} for one in layers)


def test_boxes_are_layers_with_names(detector: OfflineRun) -> None:
    """Of the truth and of every exit, as W&B draws them: in pixels, with classes, and detections with scores."""
    entry = next(one for one in detector.logged if "pictures" in one or "pictures/_type" in one)
    layers = nested(entry, "pictures")["all_boxes"]
    assert layers
    assert all(set(one) == {"truth", "exit 3"} for one in layers)
    assert {"val/box_ap/exit3", "train/giou"} <= detector.names


def nested(entry: dict[str, Any], name: str) -> dict[str, Any]:
    """What was logged under a name, whether in one piece or in parts."""
    parts = {key.partition("/")[2]: value for key, value in entry.items() if key.startswith(f"{name}/")}
    return entry.get(name) or parts


@pytest.mark.parametrize(("kind", "rows"), [("parent", 4), ("gate", 7), ("evaluation", 1)])
def test_the_trade_off_is_a_table(kind: str, rows: int, runs: dict[str, OfflineRun]) -> None:
    """A row for every exit, and for those who choose exits."""
    entry = next(one for one in runs[kind].logged if any(name.startswith("trade_off_table") for name in one))
    table = nested(entry, "trade_off_table")
    assert (table["nrows"], table["ncols"]) == (rows, 3)


def test_artifacts_tell_where_a_gate_comes_from(runs: dict[str, OfflineRun]) -> None:
    """What one step makes the next one uses, under one name and with one digest: gate from table from parent."""

    def made(job: str, kind: str) -> dict[str, str]:
        return {one.name: one.digest for one in runs[job].artifacts(kind) if not one.use_after_commit}

    def used(job: str, kind: str) -> dict[str, str]:
        return {one.name: one.digest for one in runs[job].artifacts(kind) if one.use_after_commit}

    for kind, maker, users in (
        ("parent", "parent", ("oracle", "evaluation")),
        ("exit_table", "oracle", ("gate",)),
        ("gate", "gate", ("evaluation",)),
    ):
        for user in users:
            assert len(used(user, kind)) == 1
            assert used(user, kind).items() <= made(maker, kind).items()


def test_the_dashboard_shows_what_is_logged(runs: dict[str, OfflineRun], detector: OfflineRun) -> None:
    """No panel of the saved views is empty for all jobs, and all of them can be built."""
    logged = {name for run in (*runs.values(), detector) for name in run.names}
    logged |= {name.partition("/")[0] for name in logged}
    settings = {f"config:{name}" for run in runs.values() for name in run.config}
    for title, sections in VIEWS.items():
        for panel in [panel for section in sections for panel in section.panels]:
            assert any(re.search(panel.y, name) for name in logged), panel
            assert panel.x in logged | settings, panel
        assert len(workspace(title, sections, "someone", "ecoscale", "sweep").sections) == len(sections)


def test_a_resumed_job_continues_its_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same id, in another run folder; an evaluation is a run of its own."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    resumed = [f"ckpt_path={folder}/parent/checkpoints/last.ckpt", "trainer.max_steps=2", "logger=wandb"]
    launch("src.train", *PARENT, *resumed, f"hydra.run.dir={tmp_path}/resumed")
    (before,), (after,) = offline_runs(folder / "parent"), offline_runs(tmp_path)
    assert before.run.run_id == after.run.run_id == (tmp_path / "resumed" / KEPT).read_text()
    steps = [max(entry.get("trainer/global_step", 0) for entry in run.logged) for run in (before, after)]
    assert steps[0] < steps[1]
    ids = {(folder / job / KEPT).read_text() for job in ("parent", "oracle", "gate", "evaluation")}
    assert len(ids) == 4


def test_a_failed_job_is_finished_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an exit code that is not zero, and nothing kept as an artifact; offline, since there is no key."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    long = ["trainer.max_steps=40", "task.scheduler.total_iters=40", "validate_every=40"]
    settings = [*PARENT, *long, "lr=1e30", "task.patience=1", "logger=wandb"]
    with pytest.raises(AssertionError, match="diverged"):
        launch("src.train", *settings, f"hydra.run.dir={tmp_path}/run")
    (run,) = offline_runs(tmp_path)
    assert run.exits == [1]
    assert not run.artifacts("parent")
