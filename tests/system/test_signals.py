"""How runs end: with their last step validated and kept, whatever ends them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from omegaconf import DictConfig

from src.config.build import build_run
from src.config.checkpoints import find_progress
from src.records.run_folder import FILE, finish, finished
from src.system.signals import Interrupted, Signals, signals
from src.tasks.segmentation import Segmentation
from src.train import why_it_ended
from tests.helpers import ROOT, SMALL_MODEL, TINY_SHAPES, compose_run

SETTINGS = [
    "+experiment=eco_parent_shapes",
    *TINY_SHAPES,
    *SMALL_MODEL,
    "image_size=[64,64]",
    "trainer.log_every_n_steps=1",
    "model.backbone.freeze_norm=false",  # running statistics are part of the state
]
EARLY = "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/quality, mode: max, min_delta: 999}"


def fit(cfg: DictConfig) -> Any:
    """Train, from the last checkpoint of the run folder if there is one; returns the trainer."""
    task, data, trainer = build_run(cfg)
    trainer.fit(task, data, ckpt_path=find_progress(cfg), weights_only=True)
    return trainer


def step_of(run: Path) -> int:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def logged(run: Path) -> dict[int, dict[str, str]]:
    """What metrics.csv has of each step."""
    found: dict[int, dict[str, str]] = {}
    with open(run / "metrics.csv") as file:
        for row in csv.DictReader(file):
            new = {name: value for name, value in row.items() if value and name not in ("step", "epoch")}
            of_step = found.setdefault(int(row["step"]), {})
            assert all(of_step.get(name, value) == value for name, value in new.items())
            of_step |= new
    return found


def results(run: Path) -> tuple[Any, ...]:
    """What a run came to."""
    scores = json.loads((run / "scores.json").read_text())
    states = [
        {name: value.tolist() for name, value in torch.load(file, weights_only=True)["state_dict"].items()}
        for file in (run / "checkpoints" / "last.ckpt", run / "checkpoints" / "best.ckpt")
    ]
    return logged(run), {name: value for name, value in scores.items() if name != "made_by"}, states


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "last", "why"),
    [
        (["trainer.max_steps=5", "validate_every=3"], 5, "after all 5 steps"),
        (["trainer.max_steps=5", "validate_every=3", "batch_size_per_device=1"], 5, "after all 5 steps"),
        (["trainer.max_steps=6", "validate_every=3"], 6, "after all 6 steps"),
        (["trainer.max_steps=2", "validate_every=9"], 2, "after all 2 steps"),
        (["trainer.max_steps=9", "validate_every=3", "+trainer.max_time={milliseconds: 1}"], 1, "trainer.max_time"),
        (["trainer.max_steps=99", "validate_every=2", f"+callbacks.stop={EARLY}"], 8, "ended early, at step 8"),
    ],
)
def test_a_run_ends_with_its_last_step(
    ends: list[str], last: int, why: str, configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """Validated once and kept, also where it is no multiple of the interval; what ended it is said."""
    trainer = fit(configure(*SETTINGS, *ends))
    run = tmp_path / "run"
    assert trainer.global_step == step_of(run) == json.loads((run / "scores.json").read_text())["step"] == last
    assert "val/quality" in logged(run)[last - 1]
    assert why in why_it_ended(trainer)


@pytest.mark.slow
def test_without_validations_there_is_a_checkpoint(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """Of the last step, and no scores."""
    fit(configure(*SETTINGS, "trainer.max_steps=3", "trainer.limit_val_batches=0"))
    assert step_of(tmp_path / "run") == 3
    assert not (tmp_path / "run" / "scores.json").exists()


PLACES = {  # where a signal comes, what it names, and the step that is kept
    "in a step": (Segmentation, "training_step", 4),
    "in a step before a validation": (Segmentation, "training_step", 6),
    "in a step made of several batches": (Segmentation, "training_step", 2),
    "in a validation": (Segmentation, "validation_step", 3),
    "in the last validation": (Segmentation, "validation_step", 7),
    "while data are waited for": (lightning.LightningModule, "on_before_batch_transfer", 2),
}


@cache
def unbroken(runs: Path, *settings: str) -> tuple[Any, ...]:
    """The results of a run that nothing ends early."""
    fit(compose_run(run := runs / str(len(settings)), *settings))
    return results(run)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unbroken")


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_run_that_a_signal_ends_goes_on_as_if_nothing_had_been(
    place: str, configure: Callable[..., DictConfig], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that runs is finished and kept; logs, scores and weights are those of an unbroken run, bit for bit."""
    batches = ["batch_size_per_device=1"] if "several" in place else []
    settings = [*SETTINGS, *batches, "trainer.max_steps=7", "validate_every=3", "ckpt_path=auto"]
    expected = unbroken(runs, *settings)
    owner, hook, kept = PLACES[place]
    original = getattr(owner, hook)

    def interrupted(task: Any, *arguments: Any) -> Any:
        steps = task.global_step + (hook == "training_step")
        if steps == kept and (task.trainer.training or hook == "validation_step") and signals.received is None:
            signal.raise_signal(signal.SIGTERM)
        return original(task, *arguments)

    monkeypatch.setattr(owner, hook, interrupted)
    with pytest.raises(Interrupted) as end, signals.caught():
        fit(configure(*settings))
    assert (end.value.status, step_of(tmp_path / "run")) == (143, kept)
    assert f"last.ckpt is of step {kept}" in end.value.kept
    monkeypatch.setattr(owner, hook, original)
    fit(configure(*settings))
    assert results(tmp_path / "run") == expected


@pytest.mark.slow
def test_what_fails_between_two_steps_loses_none(
    configure: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a photo that cannot be read; what fails within a step leaves the state before it alone."""
    for hook, kept in (("on_before_batch_transfer", 2), ("training_step", 2)):
        original = getattr(Segmentation, hook)

        def fails(task: Any, *arguments: Any, original: Any = original) -> Any:
            if task.global_step == 2 and not task.trainer.validating:
                raise ValueError("no such photo")
            return original(task, *arguments)

        monkeypatch.setattr(Segmentation, hook, fails)
        with pytest.raises(ValueError, match="no such photo"):
            fit(configure(*SETTINGS, "trainer.max_steps=3", "validate_every=2"))
        monkeypatch.setattr(Segmentation, hook, original)
        assert step_of(tmp_path / "run") == kept


@pytest.mark.slow
def test_checkpoints_are_kept_between_validations(
    configure: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By steps and by minutes; a run that is killed goes on from there."""
    for setting, kept in (("steps=2", 4), ("minutes=0.0", 5)):
        seen: list[int] = []

        def killed(
            task: Any, *arguments: Any, seen: list[int] = seen, original: Any = Segmentation.training_step
        ) -> Any:
            if task.global_step == 5:
                seen.append(step_of(tmp_path / "run"))
            return original(task, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Segmentation, "training_step", killed)
            fit(configure(*SETTINGS, "trainer.max_steps=6", "validate_every=9", f"callbacks.last.{setting}"))
        assert seen == [kept]


def test_signals_wait_while_they_are_held_and_the_second_does_not() -> None:
    """Outside of that they are heard at once; handlers that were there come back."""
    ours, before = Signals(), signal.getsignal(signal.SIGTERM)
    with ours.caught(), pytest.raises(Interrupted, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    with ours.caught():
        ours.hold()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            ours.release()
    assert signal.getsignal(signal.SIGTERM) == before


def test_signals_that_a_failed_training_held_are_heard_again() -> None:
    """By the next command of the same process."""
    ours = Signals()
    ours.hold()
    with ours.caught(), pytest.raises(Interrupted, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)


def test_the_signal_to_requeue_waits_for_the_step_too() -> None:
    """Then the cluster's client does what it wanted to do; of other signals it hears nothing."""
    ours, heard = Signals(), list[int]()
    before = signal.signal(signal.SIGUSR2, lambda signum, frame: heard.append(signum))
    try:
        with ours.caught():
            ours.hold()
            signal.raise_signal(signal.SIGUSR2)
            assert not heard
            with pytest.raises(Interrupted):
                ours.release()
            ours.requeue(signal.SIGTERM)
            ours.requeue(signal.SIGUSR2)
            assert heard == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [(None, True), ('{"exits": {}, "step": 5}', True), ('{"exits": {}, "step": 4}', False), ('{"exits": {', False)],
)
def test_a_run_is_finished_when_its_folder_says_so(scores: str | None, expected: bool, tmp_path: Path) -> None:
    """Its record is there, and its scores are whole and of its last step."""
    assert not finished(tmp_path)
    finish(tmp_path, "training ended", 5)
    if scores is not None:
        (tmp_path / "scores.json").write_text(scores)
    assert finished(tmp_path) == expected
    (tmp_path / FILE).write_text('{"why": ')
    assert not finished(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_sweep_that_is_ended_ends_its_jobs_and_goes_on(name: str, status: int, tmp_path: Path) -> None:
    """With their steps kept, in one line; the same command then has the results of one that nobody ended."""
    settings = ["-m", *SETTINGS, "trainer.max_steps=40", "validate_every=4", "seed=0,1"]
    command = [sys.executable, "-m", "src.train", *settings, f"hydra.sweep.dir={tmp_path}"]
    heeds = signal.SIG_DFL  # a shell's background jobs pass on that they do not
    log = tmp_path / "seed=0" / "metrics.csv"
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, heeds),
    )
    while not log.exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"error: interrupted ({name}); the same command resumes" in " ".join(errors.split())
    assert "error: interrupted (SIGTERM)" in (tmp_path / "seed=0" / "log.txt").read_text()
    assert not finished(tmp_path / "seed=0")
    assert 0 < step_of(tmp_path / "seed=0") < 40


def test_workers_end_with_the_command_that_started_them() -> None:
    """Although they ignore the signals that end it: also where an error leaves them behind."""
    script = "import multiprocessing, time\nfrom src.system.signals import leave_signals_to_parent\n"
    script += "def work(ready): leave_signals_to_parent(); ready.set(); time.sleep(600)\n"
    script += "context = multiprocessing.get_context('fork'); ready = context.Event()\n"
    script += "context.Process(target=work, args=(ready,), daemon=True).start(); ready.wait(); raise SystemExit(3)"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == 3
