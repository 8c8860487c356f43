"""Checkpoints bring the settings that they were trained with, whatever the files of the configuration say now."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from src.config import command_line
from src.config.command_line import configure as compose_as_typed
from src.config.resuming import check_resumed
from src.config.saved_settings import resumed, saved_overrides, settings_to_keep
from src.jobs.unchanged import check_unchanged
from tests.helpers import ROOT


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the configuration that a test may edit."""
    copy = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", copy)
    monkeypatch.setattr(command_line, "CONF", copy)
    return copy


def trained(folder: Path, *overrides: str) -> Path:
    """A checkpoint with the settings of a training that never was."""
    cfg = compose_as_typed([*overrides, f"paths.run={folder}"])
    kept = settings_to_keep(cfg, [*overrides])
    file = folder / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    torch.save({"hyper_parameters": kept, "state_dict": {}, "pytorch-lightning_version": "2", "global_step": 7}, file)
    return file


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def decisive(overrides: list[str]) -> dict:
    """What an evaluation with these overrides scores."""
    cfg = compose_as_typed([*overrides, "paths.run=x"], "evaluate")
    others = [str(name) for name in cfg if name not in ("callbacks", "logger", "paths")]
    settings = OmegaConf.to_container(OmegaConf.masked_copy(cfg, others), resolve=True)
    assert isinstance(settings, dict)
    settings["model"]["backbone"]["pretrained"] = False  # those weights are replaced
    return {name: settings[name] for name in ("schedule", "dim", "lr", "model", "data", "segmentation")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["nothing", "a value", "another group", "something more", "the experiment is gone", "an older checkpoint"]
)
def test_an_evaluation_is_of_the_settings_of_the_training(
    how: str, conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also after an edit of the files that it was composed from; what changed is said in one line."""
    file = trained(tmp_path / "run", "+experiment=proscale_shapes", "num_queries=7")
    typed = [f"ckpt_path={file}", "data.val.num_scenes=3"]
    before = decisive(saved_overrides(typed))
    assert capsys.readouterr().err == ""
    experiment = conf / "experiment" / "proscale_shapes.yaml"
    said = "schedule was [1, 1, 1] and is"
    if how == "a value":
        edit(experiment, "[1, 1, 1]", "[1, 2, 1]")
    elif how == "another group":
        shared = conf / "experiment" / "base" / "proscale.yaml"
        edit(shared, "pixel_embedding: light", "pixel_embedding: conv")
        edit(shared, "recalibration: linear", "recalibration: none")
        said = "encoder.recalibrate._target_ was src.models.encoder.TokenRecalibration and is not there now"
    elif how == "something more":
        experiment.write_text(experiment.read_text() + "data:\n  resize:\n    short: 64\n")
        said = "data.resize.short was ${data.train.size} and is 64 now"
    elif how == "the experiment is gone":
        experiment.unlink()
        said = "(+experiment=proscale_shapes cannot be composed any more)"
    elif how == "an older checkpoint":
        content = torch.load(file, weights_only=True)
        del content["hyper_parameters"]["composed"]
        torch.save(content, file)
        edit(experiment, "[1, 1, 1]", "[1, 2, 1]")
    assert decisive(saved_overrides(typed)) == before
    lines = capsys.readouterr().err.splitlines()
    assert (said in lines[0] and len(lines) == 1) if how != "nothing" else not lines


@pytest.mark.slow
def test_what_is_typed_wins(conf: Path, tmp_path: Path) -> None:
    """Over what the checkpoint keeps."""
    file = trained(tmp_path / "run", "+experiment=proscale_shapes")
    edit(conf / "experiment" / "mask2former_shapes.yaml", "num_queries: 20", "num_queries: 30")
    again = saved_overrides([f"ckpt_path={file}", "num_queries=9"])
    assert compose_as_typed([*again, "paths.run=x"], "evaluate").num_queries == 9
    assert saved_overrides(again) == again  # as processes do that are started with the whole command line


@pytest.mark.slow
def test_a_training_goes_on_with_the_settings_of_its_checkpoint(conf: Path, tmp_path: Path) -> None:
    """Callbacks and loggers too; an experiment that is typed stands alone."""
    file = trained(tmp_path / "run", "+experiment=proscale_shapes", "callbacks=[default,ema]", "dim=32")
    edit(conf / "experiment" / "mask2former_shapes.yaml", "lr: 1.0e-3", "lr: 2.0e-3")
    cfg = compose_as_typed([*resumed([f"ckpt_path={file}"]), "paths.run=x"])
    assert (cfg.dim, cfg.lr, "ema" in cfg.callbacks) == (32, 1e-3, True)
    typed = ["+experiment=mask2former_shapes", f"ckpt_path={file}"]
    assert resumed(typed) == typed


@pytest.mark.slow
def test_a_job_of_a_sweep_is_evaluated_alone(conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As it was trained, and not as the sweep that it was part of."""
    file = trained(tmp_path / "run", "variant=lite", "+experiment=mask2former_shapes", "+sweep=baselines")
    for read in (saved_overrides, resumed):
        overrides = read([f"ckpt_path={file}"])
        assert overrides == ["variant=lite", "+experiment=mask2former_shapes", f"ckpt_path={file}"]
    assert compose_as_typed([*overrides, "paths.run=x"]).variant == "lite"
    assert capsys.readouterr().err == ""


REFUSED = {
    "lr=0.1": "lr=0.1: ckpt_path=FILE resumes with 0.001",
    "batch_size=4": "batch_size=4: ckpt_path=FILE resumes with 16",
    "seed=1": "seed=1: ckpt_path=FILE resumes with 0",
    "schedule=[1,1,2]": "schedule=[1, 1, 2]: ckpt_path=FILE resumes with [1, 1, 1]",
    "task.optimizer.weight_decay=0.1": "task.optimizer.weight_decay=0.1: ckpt_path=FILE resumes with 0.05",
    "task/scheduler=multistep task.scheduler.milestones=[1]": "task.scheduler._target_=",
    "task.criterion.num_points=9": "task.criterion.num_points=9: ckpt_path=FILE resumes with 288",
    "data.train.num_scenes=9": "data.train.num_scenes=9: ckpt_path=FILE resumes with 20000",
    "data.augment.max_scale=2.0": "data.augment.max_scale=2.0: ckpt_path=FILE resumes with 1.0",
    "segmentation=semantic": "segmentation=semantic: ckpt_path=FILE resumes with panoptic",
    "+model.backbone.options.drop_rate=0.1": "model.backbone.options.drop_rate=0.1: ckpt_path=FILE resumes without it",
    "trainer.max_steps=900": "trainer.max_steps=900: ckpt_path=FILE was trained for a learning rate that reaches zero",
}
TAKEN = {
    "validate_every=9": "validate_every=9 (before: 400)",
    "data.val.num_scenes=9": "data.val.num_scenes=9 (before: 200)",
    "task.postprocess.object_threshold=0.5": "task.postprocess.object_threshold=0.5 (before: 0.8)",
    "trainer.gradient_clip_val=0.5": "trainer.gradient_clip_val=0.5 (before: 1.0)",
    "batch_size_per_device=4": "",
    "data.num_workers=0": "",
    "trainer.devices=2": "",
    "name=other": "",
}


@pytest.mark.slow
@pytest.mark.parametrize("typed", [*REFUSED, *TAKEN])
def test_a_run_goes_on_as_the_run_that_it_is(
    typed: str, configure: Callable[..., DictConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the checkpoint overrules, or would make it another run, is refused; what takes effect is said."""
    settings = ["+experiment=proscale_shapes"]
    kept = settings_to_keep(configure(*settings), settings)
    now = configure(*settings, *typed.split())
    if typed in REFUSED:
        with pytest.raises(ValueError, match=r"start a new run from its weights: model\.weights=FILE") as error:
            check_resumed(now, Path("FILE"), kept, 7)
        assert str(error.value).startswith(REFUSED[typed])
        return
    check_resumed(now, Path("FILE"), kept, 7)
    said = capsys.readouterr().err
    assert said == (f"from step 7 on: {TAKEN[typed]}\n" if TAKEN[typed] else "")


def test_data_may_have_moved(configure: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]) -> None:
    """A run goes on where they lie now, without a word."""
    settings = ["+experiment=proscale_coco", "data.root=/old/coco"]
    kept = settings_to_keep(configure(*settings), settings)
    check_resumed(configure("+experiment=proscale_coco", "data.root=/new/place"), Path("FILE"), kept, 7)
    assert capsys.readouterr().err == ""


def test_a_sweep_does_not_mix_settings(
    configure: Callable[..., DictConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that has results is not taken for one of today's settings; one that has none begins anew."""
    from src.jobs.job import Job
    from src.records.run_folder import finish

    job = Job("a", ["src.train", "x"], tmp_path)
    cfg = configure("+experiment=proscale_shapes")
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    job.begin()
    changed = configure("+experiment=proscale_shapes", "lr=0.5", "paths.runs=elsewhere")
    check_unchanged(job, changed, "hydra.sweep.dir")
    finish(tmp_path, "all of it")
    check_unchanged(job, cfg, "hydra.sweep.dir")
    with pytest.raises(SystemExit):
        check_unchanged(job, changed, "hydra.sweep.dir")
    assert "lr was 0.001 and is 0.5 now" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "value", ["C:\\data\\", "it's", "\\'", "${dim}", "a: {b}, 'c'", "", "true", ["\\", {"k": "'"}]]
)
def test_a_setting_is_brought_back_whatever_it_contains(value: Any, conf: Path, tmp_path: Path) -> None:
    """Backslashes and quotes too, which mean something to Hydra."""
    file = conf / "config.yaml"
    text = file.read_text()
    file.write_text(f"{text}\nextra: {json.dumps(value)}\n")
    checkpoint = trained(tmp_path / "run")
    file.write_text(f"{text}\nextra: 7\n")
    cfg = compose_as_typed([*saved_overrides([f"ckpt_path={checkpoint}"]), "paths.run=x"])
    assert OmegaConf.to_container(cfg, resolve=False)["extra"] == value  # type: ignore[call-overload, index]


@pytest.mark.slow
@pytest.mark.parametrize("above", ["", "model.backbone.options.drop_path_rate=0.1"])
def test_a_setting_that_files_have_only_now_is_left_out(
    above: str, conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the class works without it; else, and where it is typed, it stays."""
    file = trained(tmp_path / "run", "+experiment=mask2former_coco")
    experiment = conf / "experiment" / "mask2former_coco.yaml"
    edit(experiment, "\ntask:\n", "\nmodel: {backbone: {options: {drop_path_rate: 0.5}}}\ntask:\n  mine: 2\n")
    cfg = compose_as_typed([*saved_overrides([f"ckpt_path={file}", *above.split()]), "paths.run=x"], "evaluate")
    assert cfg.model.backbone.options == ({"drop_path_rate": 0.1} if above else {})
    assert cfg.task.mine == 2
    said = capsys.readouterr().err
    assert above or "model.backbone.options.drop_path_rate was not there and is 0.5 now; the checkpoint's" in said
    assert "trained without are used: task.mine was not there and is 2 now" in said


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--package", "task.optimizer"]])
def test_a_group_that_files_have_only_now_is_left_out(flags: list[str], conf: Path, tmp_path: Path) -> None:
    """A training from before there were rates by name goes on without them; what a flag shows does not matter."""
    settings, empty = conf / "task" / "segmentation.yaml", "\n  lr_multipliers: {}"
    edit(settings, empty, "\n  #")
    file = trained(tmp_path / "run", "+experiment=mask2former_coco")
    edit(settings, "\n  #", "\n  lr_multipliers: {encoder: 0.1}\n  #")
    overrides = [one for one in resumed([f"ckpt_path={file}", *flags]) if one not in flags]
    cfg = compose_as_typed([*overrides, "paths.run=x"])
    assert cfg.task.optimizer.lr_multipliers == {}


def test_settings_of_another_data_set_are_left_out(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that it does not take, which is reported; sizes that both have stay."""
    own = ["data=custom_semantic", "data.root=mine", "data.val.ignore=[11]", "+data.num_classes=5"]
    file = trained(tmp_path, "+experiment=proscale_camvid", *own, "data.eval_batch_size=3")
    overrides = saved_overrides([f"ckpt_path={file}", "data=shapes"])
    said = capsys.readouterr().err
    assert "trained with data.root=mine, data.val.ignore=[11]" in said
    assert "which data=shapes does not take" in said
    assert "data.eval_batch_size=3" in overrides
    data = compose_as_typed(overrides, "evaluate").data
    assert (data.eval_batch_size, data.train._target_) == (3, "src.data.shapes.Shapes")


def test_a_data_set_in_the_checkpoints_folder_keeps_its_settings(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is found there, as the experiments are that lie beside it."""
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "mine.yaml").write_text("defaults: [custom_semantic]\n")
    there = f"hydra.searchpath=['file://{tmp_path / 'own'}']"
    file = trained(tmp_path, there, "+experiment=proscale_camvid", "data=mine", "data.root=x", "data.val.ignore=[11]")
    overrides = saved_overrides([f"ckpt_path={file}", "data=mine", "allow=[]"])
    assert "data.val.ignore=[11]" in overrides
    assert "does not take" not in capsys.readouterr().err
