"""Sweeps on SLURM: what is submitted, what is waited for, and what is said where that cannot be."""

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from src.config.command_line import CONF, PLUGINS, check
from src.jobs.job import Job, Requeueable
from src.records.run_folder import finish
from src.system.signals import signals
from tests.helpers import error_line

sys.path.append(PLUGINS) if PLUGINS not in sys.path else None
from hydra_plugins import slurm  # noqa: E402
from hydra_plugins.slurm import SlurmLauncher, wait  # noqa: E402

EXTRA = importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is not None
SETTINGS = {"submitit_folder": "sweep/.submitit/%j", "max_num_timeout": 3, "tasks_per_node": 1, "partition": "gpus"}


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What a pretended submitit was told: settings, then jobs, which get the numbers 7_0, 7_1, ..."""
    told: list[Any] = []

    class AutoExecutor:
        def __init__(self, folder: str, **settings: Any):
            told.append({"folder": folder, **settings})

        def update_parameters(self, **settings: Any) -> None:
            told.append(settings)

        def submit_array(self, jobs: list[Requeueable]) -> list[Any]:
            told.extend(one.job.name for one in jobs)
            log = tmp_path / "log.out"
            log.write_text("error: out of luck\nsrun: error: node1: task 0: Exited with exit code 2\n")
            return [SimpleNamespace(job_id=f"7_{i}", paths=SimpleNamespace(stdout=log)) for i in range(len(jobs))]

    config = ModuleType("hydra_plugins.hydra_submitit_launcher.config")
    config.BaseQueueConf = SimpleNamespace(__dataclass_fields__=["tasks_per_node"])  # type: ignore[attr-defined]
    submitit = ModuleType("submitit")
    submitit.AutoExecutor = AutoExecutor  # type: ignore[attr-defined]
    for module in (submitit, ModuleType("hydra_plugins.hydra_submitit_launcher"), config):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(slurm, "SECONDS_BETWEEN_LOOKS", 0)
    return told


def jobs(folder: Path, *names: str) -> list[Job]:
    return [Job(name, ["src.train", name], folder / name) for name in names]


def ends(*answers: Any, done: Job) -> Any:
    """A queue that gives these answers in turn; with the last, a job is done."""
    given = list(answers)

    def queue() -> set[str]:
        answer = given.pop(0)
        if not given:
            done.begin()
            finish(done.folder, "all of it")
        if isinstance(answer, Exception):
            raise answer
        return answer

    return queue


def test_what_is_not_done_is_submitted(submitted: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the queue already is waited for; a job that SLURM lost has failed, for the reason in its log."""
    a, b, c, d = jobs(tmp_path, "a", "b", "c", "d")
    for job in (a, b):
        job.folder.mkdir()
    a.begin()
    finish(a.folder, "all of it")
    (b.folder / "slurm_id").write_text("5_1")
    monkeypatch.setattr(slurm, "queued_jobs", ends({"5_1"}, {"7_0", "5_1"}, {"5_1"}, done=b))
    assert SlurmLauncher(**SETTINGS).run([a, b, c, d]) == dict.fromkeys("cd", "error: out of luck")
    assert submitted == [
        {"folder": "sweep/.submitit/%j", "cluster": "slurm", "slurm_max_num_timeout": 3},
        {"tasks_per_node": 1, "slurm_partition": "gpus"},
        "c",
        "d",
    ]
    assert (d.folder / "slurm_id").read_text() == "7_1"
    assert "out of luck" in d.log.read_text()


def test_a_job_that_is_requeued_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As long as it is in the queue, and while SLURM does not answer."""
    (job,) = jobs(tmp_path, "a")
    job.folder.mkdir()
    (job.folder / "slurm_id").write_text("7_0")
    answers = [{"7_0"}, subprocess.CalledProcessError(1, "squeue"), {"7_0", "8"}]
    monkeypatch.setattr(slurm, "SECONDS_BETWEEN_LOOKS", 0)
    monkeypatch.setattr(slurm, "queued_jobs", ends(*answers, done=job))
    wait([job])
    assert job.done


def test_no_slurm_here_is_said(
    submitted: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, where nothing has been submitted."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "squeue" in error_line(capsys, lambda: SlurmLauncher(**SETTINGS).run(jobs(tmp_path, "a")))
    assert "a" not in submitted


@pytest.mark.parametrize("devices", [4, "2"])
def test_devices_are_those_that_slurm_gives(devices: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A process for each; other numbers are refused."""
    launcher = SlurmLauncher(**SETTINGS)
    for fits in ("auto", 1, "1"):
        launcher.check_devices(fits)
    line = error_line(capsys, lambda: launcher.check_devices(devices))
    assert f"trainer.devices={devices}: hydra.launcher.tasks_per_node=1" in line


@pytest.mark.skipif(EXTRA, reason="the extra is installed")
def test_what_to_install_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the extra."""
    assert "pip install '.[slurm]'" in error_line(capsys, lambda: check(["hydra/launcher=slurm"], multirun=True))


@pytest.mark.skipif(not EXTRA, reason="needs the extra `slurm`")
def test_the_preset_composes() -> None:
    """With what is typed on top; a launcher is made of it."""
    typed = ["hydra/launcher=slurm", "hydra.launcher.partition=gpus", "hydra.launcher.timeout_min=60"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", typed, return_hydra_config=True)
    settings: Any = OmegaConf.to_container(cfg.hydra.launcher, resolve=False)
    assert settings.pop("_target_") == "hydra_plugins.slurm.SlurmLauncher"
    assert (settings["gpus_per_node"], settings["tasks_per_node"], settings["partition"]) == (1, 1, "gpus")
    assert SlurmLauncher(**settings).settings["timeout_min"] == 60


def test_a_sweep_that_is_interrupted_leaves_its_jobs(
    submitted: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the queue, and says how to come back to them."""
    (job,) = jobs(tmp_path, "a")
    monkeypatch.setattr(slurm, "queued_jobs", iter([set()]).__next__)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where tests run in the background
    monkeypatch.setattr(slurm, "wait", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as stop, signals.caught():
        SlurmLauncher(**SETTINGS).run([job])
    assert stop.value.code == 130
    assert "the same command waits for them again" in capsys.readouterr().err
