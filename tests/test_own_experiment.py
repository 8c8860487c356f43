"""Experiments outside the repository, with own classes: found by every command, and trusted on purpose only."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from src import eco
from src.config.command_line import CONF, check, configure, run
from src.config.saved_settings import saved_overrides
from src.config.schema import check_settings
from src.config.search_path import overrides_of, with_search_path
from tests.config.test_sweeps import ProcessLauncher
from tests.helpers import error_line

MINE = """# @package _global_
defaults:
  - proscale_shapes
name: mine
allow: [own_package]
data:
  augment:
    _target_: own_package.Dusk
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a user works in: `conf/` has the experiment `mine`, which names a class of `own_package`."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(MINE)
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text(
        "import os\nfrom src.data.transforms import LargeScaleJitter\nclass Dusk(LargeScaleJitter):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_package", raising=False)
    return tmp_path


def override_of(folder: Path) -> str:
    return f"hydra.searchpath=['file://{folder}']"


def checkpoint(folder: Path, *overrides: str) -> str:
    """A file that was trained with these settings; the override that names it."""
    torch.save({"hyper_parameters": {"overrides": list(overrides)}}, folder / "a.ckpt")
    return f"ckpt_path={folder / 'a.ckpt'}"


@pytest.mark.parametrize(
    "typed",
    [
        ["--config-dir", "conf"],
        ["--config-dir=conf"],
        ["-cd", "conf"],
        ["hydra.searchpath=[conf]"],
        ["hydra.searchpath=[file://conf]"],
        ["hydra.searchpath=conf", "--config-dir", "conf"],
    ],
)
def test_every_spelling_is_one_override(typed: list[str], own: Path) -> None:
    """Absolute, so that it means the same to jobs and in checkpoints."""
    assert with_search_path(["seed=1", *typed]) == ["seed=1", override_of(own / "conf")]
    assert with_search_path(["seed=1"]) == ["seed=1"]


@pytest.mark.slow
@pytest.mark.parametrize("primary", ["config", "evaluate", "label", "predict", "eco", "cost", "validate_data"])
def test_every_command_finds_the_experiment(primary: str, own: Path) -> None:
    """The check before it runs, and what composes, see the folder."""
    overrides = [override_of(own / "conf"), "+experiment=mine", *(["betas=[0.1]"] if primary == "eco" else [])]
    check(overrides, primary=primary)
    assert configure(overrides, primary).name == "mine"


def test_a_misspelt_experiment_of_ones_own_is_suggested(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside those of the repository."""
    line = error_line(capsys, lambda: check([override_of(own / "conf"), "+experiment=min"]))
    assert "did you mean 'mine'" in line
    assert "proscale_coco" in line


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--config-dir=nothing", "--config-dir=nothing: no such folder, looked in "),
        ("hydra.searchpath=[nothing]", "hydra.searchpath=nothing: no such folder, looked in "),
        ("hydra.searchpath=[1]", "expected a list of folders"),
    ],
)
def test_a_folder_that_is_not_there_is_refused(
    typed: str, message: str, own: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, before anything runs."""
    monkeypatch.setattr(sys, "argv", ["src.train"])
    assert message in error_line(capsys, lambda: run(lambda: None, [typed]))


def composed(*overrides: str) -> Any:
    """The configuration, Hydra's part included."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


def test_jobs_of_a_sweep_get_the_folder(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a folder of their own: experiments of one name in two places are two sweeps."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="src.train"), raising=False)
    launcher = ProcessLauncher()
    launcher.config = composed(override_of(own / "conf"), "+experiment=mine")
    loader = SimpleNamespace(load_sweep_config=lambda config, overrides: config)
    launcher.context = SimpleNamespace(config_loader=loader)
    job, values = launcher.job(own, ["+experiment=mine", "seed=1"], ["seed"])
    assert values == {"seed": "1"}
    assert job.arguments[:3] == ["src.train", override_of(own / "conf"), "+experiment=mine"]
    folders = {
        composed(f"hydra.searchpath={places}", "+experiment=proscale_shapes", "paths.run=x").hydra.sweep.dir
        for places in ("[]", f"['file://{own}/conf']")
    }
    assert len(folders) == 2


@pytest.mark.slow
def test_steps_of_a_chain_get_the_folder(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, and what may run."""
    seen: list[Any] = []
    monkeypatch.setattr(eco, "run_all", lambda jobs, *settings: seen.extend(jobs) or {})
    monkeypatch.setattr(sys, "argv", ["eco"])
    typed = ["+experiment=mine", "--config-dir", "conf", "exits=[1,2,3]", "betas=[0.1]", "allow=[own_package]"]
    run(eco.eco, eco.arguments(typed), "eco")
    assert len(seen) == 4
    for job in seen:
        assert override_of(own / "conf") in job.arguments
        assert "allow=[own_package]" in job.arguments


def test_a_checkpoint_remembers_the_folder(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And takes it up while it is there, unless another is typed; nothing else of Hydra's."""
    there, experiment = override_of(own / "conf"), "+experiment=mine"
    assert overrides_of(composed(there, experiment, "hydra.verbose=true").hydra) == [there, experiment]
    file = checkpoint(own, there, experiment, "hydra.searchpath=[pkg://own_package]")
    assert saved_overrides([file]) == [there, experiment, "allow=[]", file]
    other = own / "other"
    other.mkdir()
    assert saved_overrides([file, f"--config-dir={other}"]) == [experiment, file, override_of(other)]
    (own / "conf").rename(own / "moved")
    assert saved_overrides([file]) == [experiment, file]
    assert f"folder of configuration {own / 'conf'} is gone" in capsys.readouterr().err


def test_own_classes_are_allowed_on_purpose(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the line that is typed or the experiment that is; else the line says what to write."""
    mine = [override_of(own / "conf"), "+experiment=mine"]
    check(mine)
    check(["data.augment._target_=own_package.Dusk", "allow=[own_package]"])
    line = error_line(capsys, lambda: check(["data.augment._target_=own_package.Dusk"]))
    assert "data.augment._target_=own_package.Dusk: write allow=[own_package] if you trust own_package" in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.augment._target_=own_package.os.system", "allow=[own_package]"], "expected a class or function below"),
        (["data.augment._target_=own_package.Dask", "allow=[own_package]"], "no such class or function, looked in"),
        (["+data.augment.darkest=1", "data.augment._target_=own_package.Dusk", "allow=[own_package]"], "no 'darkest'"),
        (["allow=own_package"], "allow=own_package: expected a list of packages"),
        (["allow=['']"], "expected a list of packages"),
    ],
)
def test_what_is_allowed_is_that_package(
    settings: list[str], message: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither what it imports, nor what it has not."""
    assert message in error_line(capsys, lambda: check(settings))


@pytest.mark.slow
def test_a_checkpoint_allows_nothing_by_itself(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither by its settings nor by the experiment in the folder that it names; the user's word counts."""
    plain = checkpoint(own, "data.augment._target_=own_package.Dusk", "allow=[own_package]", "++allow=[own_package]")
    message = "write allow=[own_package] if you trust own_package"
    assert message in error_line(capsys, lambda: check(saved_overrides([plain]), primary="evaluate"))
    check(saved_overrides([plain, "allow=[own_package]"]), primary="evaluate")
    file = checkpoint(own, override_of(own / "conf"), "+experiment=mine")
    assert message in error_line(capsys, lambda: check(saved_overrides([file]), primary="evaluate"))
    for typed in ("allow=[own_package]", "--config-dir=conf"):
        check(saved_overrides([file, typed]), primary="evaluate")


@pytest.mark.parametrize(
    "setting",
    [
        "callbacks: {x: {_target_: own_package.Dusk}}",
        "job_logging: {root: {handlers: []}}",
        "job: {env_set: {A: b}}",
        "launcher: {_target_: own_package.Dusk}",
    ],
)
def test_files_elsewhere_run_nothing_through_hydra(setting: str, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which a checkpoint that names their folder would have run."""
    (own / "conf" / "experiment" / "mine.yaml").write_text(f"{MINE}hydra:\n  {setting}\n")
    assert "error: hydra" in error_line(capsys, lambda: check([override_of(own / "conf"), "+experiment=mine"]))


def test_allowed_packages_are_a_setting_of_the_whole() -> None:
    """Of that name at its top only."""
    part = {"_target_": "os.system", "allow": ["os"]}
    with pytest.raises(ValueError, match=r"write allow=\[os\]"):
        check_settings({"data": part, "allow": []})
