"""What a user gets wrong is said in one line, before anything runs where that can be known."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from src.config.build import build_run
from src.config.checkpoints import find_checkpoint
from src.config.command_line import check, configure, quote_path, run
from src.config.errors import report_errors
from src.config.saved_settings import saved_overrides
from src.data.export import export_coco
from src.data.shapes import Shapes
from src.evaluate import evaluate
from src.train import train
from tests.helpers import ROOT, SMALL_MODEL, TINY, TINY_SHAPES, error_line, launch
from tests.weights import published
from tests.weights.published import weights

SHAPES = ["+experiment=proscale_shapes", *TINY_SHAPES, *SMALL_MODEL, "image_size=[64,64]"]
SIZES = ["data.augment.size=64", "data.resize.short=64", "data.resize.long=64", "image_size=[64,64]"]
QUIET = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
COCO = ["+experiment=proscale_coco", *TINY, *SMALL_MODEL, *SIZES]


@pytest.mark.parametrize("name", ["seed=0", "schedule=[1,1,1]", "it's", "a b,c", "plain"])
def test_a_path_may_have_any_name(name: str, tmp_path: Path) -> None:
    """Of a sweep's folder, for one; Hydra reads what was typed."""
    (tmp_path / name).mkdir()
    override = OverridesParser.create().parse_override(quote_path(f"ckpt_path={tmp_path / name}"))
    assert override.value() == str(tmp_path / name)
    assert quote_path("seed=0,1") == "seed=0,1"


MISSPELT = {
    "+experiment=proscal_coco": "did you mean 'proscale_coco'?; there are: deformable_detr_coco, ",
    "scedule=[1,1,1]": "'scedule', did you mean 'schedule'",
    "+scedule=[1,1,1]": "'scedule', did you mean 'schedule'",
    "trainer={max_step: 3}": "did you mean 'trainer.max_steps'",
    "task.optimizer.lr_multipliers={offsets: 0.1}": "to add it, write +task.optimizer.lr_multipliers.offsets=...",
    "task.optimizer.lr_multipliers.offsets=0.1": "to add it, write +task.optimizer.lr_multipliers.offsets=...",
    "precision=32-true": "did you mean 'trainer.precision'",
    "trainer.max_step=3": "did you mean 'trainer.max_steps'",
    "model.backbone.nam=x": "did you mean 'model.backbone.name'",
    "model.bakbone.name=x": "did you mean 'model.backbone.name'",
    "+model.pixel_decoder.dimm=3": "PixelDecoder takes no 'dimm', did you mean 'dim'",
    "+task.aplha=1": "Segmentation takes no 'aplha', did you mean 'alpha'",
    "+task.postproces=1": "Segmentation takes no 'postproces', did you mean 'postprocess'",  # of its base class
    "+trainer.limit_train_batch=1": "did you mean 'limit_train_batches'",
    "+trainer.foo=1": "Trainer takes no 'foo', it takes accelerator",
    "trainer.max_time=3": "write +trainer.max_time=",
    "trainer.val_check_interval=3": "trainer.val_check_interval: not taken here; use validate_every=N",
    "model/backbone=resnet51": "did you mean 'resnet50'",
    "data=coco": "cityscapes_semantic, coco_boxes, coco_instances, coco_panoptic",
    "logger=wandbb": "did you mean 'wandb'",
    "callbacks=[default,emma]": "did you mean 'ema'",
    "callbacks=null": "callbacks=[]",
    "foo": "expected NAME=VALUE",
    "task/scheduler=multistep": "task.scheduler.milestones: has no default",
    "model/backbone=timm": "model.backbone.name: has no default",
}


@pytest.mark.parametrize("override", MISSPELT)
def test_what_is_misspelt_gets_the_closest_name(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that does not exist, at any depth, is answered by the one that was meant."""
    assert MISSPELT[override] in error_line(capsys, lambda: check([override]))


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("schedule=[1,1,1],[2,-1,1]", "schedule=[2, -1, 1]: expected"),
        ("data=shapes,coco", "there are: ade20k_instances, "),
        ("scedule=[1,1,1],[2,1,1]", "did you mean 'schedule'"),
        ("+scedule=[1,1,1],[2,1,1]", "did you mean 'schedule'"),
    ],
)
def test_every_value_of_a_sweep_is_checked_first(sweep: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep whose second job cannot be does not start its first."""
    assert message in error_line(capsys, lambda: check([sweep], multirun=True))


PARAMS = "+hydra.sweeper.params"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"{PARAMS}.scedule='1,2'"], "'scedule', did you mean 'schedule'"),
        ([f"{PARAMS}.seed='1,-2'"], "seed=-2: expected"),
        ([f"{PARAMS}.seed='choice(1,-2)'"], "seed=-2: expected"),
        ([f"{PARAMS}.seed='range(-2,3)'"], "seed=-2: expected"),
        ([f"{PARAMS}.seed='1,2'", "seed=1,-2"], "seed=-2: expected"),
        ([f"{PARAMS}.seed=''"], "params.seed: has no values, expected some"),
        ([f"{PARAMS}.seed='range(3,3)'"], "seed=range(3,3): has no values, expected some"),
        ([f"{PARAMS}.seed='choice()'"], "'choice()': empty choice"),
        (["seed=range(3,3)"], "seed=range(3,3): has no values, expected some"),
        (["hydra.sweeper.params.schedule=[]"], "hydra.sweeper.params.schedule=[]: Cannot convert 'list' to string"),
        (["lr=interval(0.1,0.2)"], "an interval takes hydra/sweeper=search"),
    ],
)
def test_the_values_of_a_sweep_file_are_checked_first(
    overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those that are typed are, whether the flag or the file makes it a sweep."""
    assert message in error_line(capsys, lambda: check(["+sweep=schedule", *overrides]))


@pytest.mark.slow
def test_what_is_typed_stands_for_the_values_of_a_file() -> None:
    """Which are not checked then."""
    check(["+sweep=schedule", f"{PARAMS}.seed='-1,-2'", "seed=1,2"])
    check(["+sweep=schedule", f"{PARAMS}.seed=''", f"{PARAMS}.lr='interval(1,2)'", "seed=1,2", "lr=0.1"])


@pytest.mark.skipif(bool(find_spec("optuna")), reason="the extra is installed")
@pytest.mark.parametrize("override", ["+sweep=search", "hydra/sweeper=search"])
def test_an_extra_that_is_missing_is_named(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the command that installs it."""
    assert "pip install '.[search]'" in error_line(capsys, lambda: check([override], multirun=True))


def test_the_ends_of_an_interval_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a search that takes it."""
    pytest.importorskip("optuna")
    check(["+sweep=search", f"{PARAMS}.lr='interval(0.1,0.2)'"])
    assert "lr=-1.0" in error_line(capsys, lambda: check(["+sweep=search", f"{PARAMS}.lr='interval(-1,0.2)'"]))


def test_jobs_keep_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    """They are what a sweep that is repeated finds them by; Hydra's basic launcher takes others."""
    other = ["seed=1,2", "hydra.sweep.subdir=${seed}"]
    assert "expected hydra.sweep.dir=FOLDER" in error_line(capsys, lambda: check(other, multirun=True))
    check([*other, "hydra/launcher=basic", "trainer.devices=1"], multirun=True)
    check(["seed=1,2"], multirun=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "gpus"),
    [
        *(("trainer.devices=2", 0), ("trainer.devices=1,-1", 0), ("trainer.strategy=ddp", 0)),
        *(("trainer.devices=auto", 2), ("trainer.accelerator=auto,cpu", 2)),
    ],
)
def test_jobs_that_share_a_process_have_one_device(
    override: str, gpus: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every job of the basic launcher does; with any other launcher, or alone, they may have several."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    sweep = ["seed=1,2", override]
    line = error_line(capsys, lambda: check([*sweep, "hydra/launcher=basic"], multirun=True))
    assert "share one process" in line
    assert "hydra/launcher=processes" in line
    check(sweep, multirun=True)
    check([*sweep, "hydra/launcher=basic"], multirun=True, primary="cost")
    check(["seed=1,2", "hydra/launcher=basic", "trainer.devices=1"], multirun=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "override",
    [
        *("schedule=[-1,1,1]", "schedule=[1.5,1,1]", "schedule=abc", "schedule=3", "schedule=null", "schedule=[a,1]"),
        *("exits=[0]", "exits=[]", "exits=2", "exits=abc", "dim=0", "dim=abc", "num_queries=0", "num_queries=-1"),
        *("batch_size=0", "batch_size=2.5", "batch_size_per_device=0", "lr=-1", "lr=nan", "lr=abc"),
        *("segmentation=foo", "trainer.max_steps=0", "trainer.max_steps=-5", "validate_every=0", "validate_every=1.5"),
        *("image_size=[64]", "image_size=64", "image_size=[0,64]", "seed=-1", "seed=null", "name=null"),
        *("data.num_workers=-1", "data.train.num_scenes=0", "task.patience=0", "trainer.gradient_clip_val=-1"),
        *(
            "model.compile=flase",
            "task.instance_truth=3",
            "model.decoder.num_layers=-1",
            "+trainer.max_time=60",
            "+trainer.deterministic=maybe",
            "task.postprocess.object_threshold=8",
        ),
    ],
)
def test_a_value_that_cannot_be_is_named(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The line repeats the setting with its value, and says what was expected."""
    line = error_line(capsys, lambda: check([override]))
    assert line.replace(" ", "").replace("'", "").startswith(f"error:{override.lstrip('+')}:expected")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule=[]", "schedule=[]: expected"),
        ("schedule=[1,1,1,1]", "expected up to 3"),
        ("exits=[9]", "the encoder has 3 layers"),
        ("dim=48", "dim=48: expected a multiple of 32"),
        ("model.decoder.num_heads=5", "num_heads=5: expected a divisor of dim=32"),
        ("batch_size_per_device=3", "batch_size=2 is no multiple of 3"),
        ("trainer.precision=foo", "precision=foo"),
        ("trainer.accelerator=tpu", "no trainer with accelerator=tpu"),
        ("model.backbone.name=resnet999", "no timm model; near it: resnet"),
        ("model.backbone.name=vit_base_patch16_224", "unexpected keyword argument 'layers'"),
        ("model.backbone.pretrained=nothing.safetensors", "backbone.pretrained=nothing.safetensors: no such file"),
        ("model.weights=nothing.ckpt", "weights nothing.ckpt: no such file"),
        ("lr=${foo}", "'foo' not found"),
    ],
)
def test_what_only_building_can_tell_is_one_line_too(
    override: str, message: str, configure: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings that contradict each other, and files that are not there, stop a run before it trains."""
    assert message in error_line(capsys, lambda: report_errors(build_run)(configure(*SHAPES, override)))  # type: ignore[arg-type]


def test_no_backbone_without_the_strides(configure: Callable[..., DictConfig]) -> None:
    """A backbone that lacks one of the strides 4 to 32 is refused with the strides it has."""
    one = ["+experiment=proscale_coco", "data=shapes", *SMALL_MODEL, *TINY]
    with pytest.raises(Exception, match="strides"):
        build_run(configure(*one, "model.backbone.name=vit_tiny_patch16_224"))


def test_without_a_network_weights_are_not_waited_for(
    configure: Callable[..., DictConfig],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Pretrained weights that cannot be fetched are refused at once, with what to write instead."""
    monkeypatch.setattr("src.models.backbone.reachable", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.perf_counter()
    cfg = configure(*SHAPES, "model.backbone.pretrained=true")
    assert "pretrained=FILE" in error_line(capsys, lambda: report_errors(build_run)(cfg))  # type: ignore[arg-type]
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("target", ["os.system", "src.config.build.os.system", "torch.hub.load", "src.nothing.Thing"])
def test_a_config_calls_only_what_belongs_here(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Targets outside the project and its frameworks are refused, by whichever name they go."""
    assert "_target_" in error_line(capsys, lambda: check([f"+callbacks.more._target_={target}"]))


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_image_names_itself(
    split: str,
    num_workers: int,
    configure: Callable[..., DictConfig],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """An image cut short ends training or validation with its file, also where a worker process met it."""
    for folder, seed in (("train", 0), ("val", 1)):
        export_coco(Shapes(2, size=64, seed=seed), tmp_path, folder)
    file = tmp_path / f"{split}2017" / "000000000001.png"
    file.write_bytes(file.read_bytes()[:500])

    def fit(cfg: DictConfig) -> None:
        task, data, trainer = build_run(cfg)
        trainer.fit(task, data)

    cfg = configure(*COCO, f"data.root={tmp_path}", f"data.num_workers={num_workers}")
    line = error_line(capsys, lambda: report_errors(fit)(cfg))
    assert f"{file}: cannot be decoded" in line


@pytest.mark.parametrize("missing", ["train2017", "panoptic_val2017", "annotations/panoptic_train2017.json"])
def test_missing_data_says_how_to_get_it(
    missing: str, configure: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A folder or file that is not there is named, and so is the command that fetches COCO."""
    for folder in ("train", "val"):
        export_coco(Shapes(1, size=64), tmp_path, folder)
    (tmp_path / missing).rename(tmp_path / "elsewhere")

    def scenes(cfg: DictConfig) -> None:
        _ = build_run(cfg).data.train_scenes  # type: ignore[attr-defined]

    line = error_line(capsys, lambda: report_errors(scenes)(configure(*COCO, f"data.root={tmp_path}")))
    assert f"{tmp_path / missing}" in line
    assert "python -m scripts.prepare_coco --root" in line


@pytest.mark.parametrize("runs", ["file", "/proc/nowhere"])
def test_a_run_folder_that_cannot_be_is_refused(runs: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Where no run folder can be made, no run starts, and nothing is left behind."""
    (tmp_path / "file").touch()
    assert "nothing can be written" in error_line(capsys, lambda: check([f"paths.runs={tmp_path / runs}"]))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("path", ["nothing.ckpt", "last", "text.ckpt", "auto"])
def test_a_checkpoint_that_cannot_be_read_is_named(
    path: str,
    configure: Callable[..., DictConfig],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """To start from nothing, from what is no checkpoint, or by `auto` where nothing is trained, is refused at once."""
    monkeypatch.chdir(tmp_path)
    Path("text.ckpt").write_text("not weights")
    cfg = configure(f"ckpt_path={path}")
    assert f"ckpt_path={path}" in error_line(capsys, lambda: report_errors(find_checkpoint)(cfg))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_model_only(
    configure: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A checkpoint tells its settings to what evaluates it, `last` too; another schedule is refused to resume it."""
    overrides = [*SHAPES, "logger=csv", f"paths.run={tmp_path / 'run' / 'now'}"]
    task, data, trainer = build_run(configure(*overrides), overrides)
    trainer.fit(task, data)
    file = tmp_path / "run" / "now" / "checkpoints" / "last.ckpt"
    expected = [override for override in overrides if not override.startswith(("logger", "paths"))]
    for typed in ([f"ckpt_path={file}"], ["ckpt_path=last", f"paths.runs={tmp_path}"]):
        assert saved_overrides(typed) == [*expected, *typed]

    def resume(cfg: DictConfig) -> None:
        task, data, trainer = build_run(cfg)
        trainer.fit(task, data, ckpt_path=find_checkpoint(cfg), weights_only=True)

    line = error_line(
        capsys, lambda: report_errors(resume)(configure(*SHAPES, "schedule=[2,1,1]", f"ckpt_path={file}"))
    )
    assert f"ckpt_path={file} is of another architecture" in line


@pytest.mark.slow
def test_the_last_checkpoint_is_the_last(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """Every validation writes last.ckpt, also when nothing got better."""
    task, data, trainer = build_run(configure(*SHAPES, "trainer.max_steps=3", "task.postprocess.object_threshold=1.0"))
    trainer.fit(task, data)
    steps = {name: find_step(tmp_path / "run" / "checkpoints" / f"{name}.ckpt") for name in ("best", "last")}
    assert steps == {"best": 1, "last": 3}  # no query is ever certain, so all scores are 0


def find_step(file: Path) -> int:
    return torch.load(file, weights_only=True)["global_step"]


@pytest.mark.parametrize(
    "typed",
    [
        ["--cfg", "job", "+experiment=proscale_shapes", "lr=0.5"],
        ["+experiment=proscale_shapes", "lr=0.5", "--cfg", "job"],
        ["+experiment=proscale_shapes", "--cfg", "job", "lr=0.5"],
    ],
    ids=" ".join,
)
def test_flags_may_stand_anywhere(
    typed: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before, between and after overrides; asked for settings, a command makes no folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["src.train", *typed])
    run(train)
    shown = capsys.readouterr().out
    assert "name: proscale_shapes" in shown
    assert "lr: 0.5" in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("typed", ["--experiment", "--lr=3", "-x"])
def test_a_flag_that_there_is_not_is_refused(
    typed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the form that settings have."""
    monkeypatch.setattr(sys, "argv", ["src.train", typed, "proscale_coco"])
    line = error_line(capsys, lambda: run(train))
    assert f"error: {typed}: no such flag; settings are written NAME=VALUE" in line


@pytest.mark.slow
@pytest.mark.parametrize("entry", [train, evaluate])
def test_help_shows_dials_experiments_and_commands(
    entry: Callable[[], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for help, both commands show what to type."""
    monkeypatch.setattr(sys, "argv", ["src", "--help"])
    with pytest.raises(SystemExit) as stop:
        run(entry)
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    own = {"train": ("schedule=", "exits="), "evaluate": ("gate=FILE", "budget_gflops=")}[entry.__name__]
    for word in (*own, "experiment: deformable_detr_coco", "python -m src.evaluate ckpt_path="):
        assert word in shown


def start(*arguments: str) -> subprocess.Popen[str]:
    """One of the commands, as a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *arguments]
    pipe = subprocess.PIPE
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs pass on that they do not
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=heeds)


@pytest.mark.slow
def test_a_run_warns_of_nothing(tmp_path: Path) -> None:
    """Neither torch nor Lightning, with worker processes and accumulated batches."""
    several = ["batch_size_per_device=1", "data.num_workers=1", f"paths.runs={tmp_path}"]
    process = start("src.train", *SHAPES, *several)
    assert process.communicate(timeout=300)[1] == ""
    assert process.returncode == 0


@pytest.mark.slow
def test_a_mistake_ends_in_one_line_and_a_status() -> None:
    """The command itself exits with 2 and writes a single line to stderr."""
    process = start("src.train", "experiment=proscal_coco")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("error: "), errors.count("\n")) == (2, 1, 1), errors


def test_nothing_to_evaluate_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`src.evaluate` without a checkpoint says which arguments name one."""
    monkeypatch.setattr(sys, "argv", ["src.evaluate"])
    arguments = [*QUIET, f"paths.runs={tmp_path}"]
    assert "give ckpt_path=FILE" in error_line(capsys, lambda: run(evaluate, arguments))


@pytest.mark.slow
def test_a_sweep_runs_every_value(tmp_path: Path) -> None:
    """`-m`, wherever it stands, trains a model for each schedule, in a folder of that name, and tabulates scores."""
    schedules = ["schedule=[1,1,1]", "schedule=[2,1,1]"]
    launch("src.train", *SHAPES, *QUIET, f"paths.runs={tmp_path}", "-m", "schedule=[1,1,1],[2,1,1]")
    (sweep,) = tmp_path.glob("*/sweep_*")
    assert sorted(file.parts[-3] for file in sweep.rglob("last.ckpt")) == schedules
    with open(sweep / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["job"], row["status"], row["exit"]) for row in rows] == [
        (s, "done", e) for s, e in zip(schedules, "34", strict=True)
    ]
    for row in rows:
        scores = json.loads((sweep / row["job"] / "scores.json").read_text())["exits"][row["exit"]]
        assert {name: str(value) for name, value in scores.items()} == {name: row[name] for name in scores}


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_saved(tmp_path: Path) -> None:
    """Interrupted, a run ends in one line, which says the step that is kept."""
    process = start("src.train", *SHAPES, f"paths.runs={tmp_path}", "trainer.max_steps=100000", "validate_every=2")
    for _ in range(600):
        if process.poll() is not None or list(tmp_path.glob("*/*/checkpoints/last.ckpt")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    step = find_step(last := next(tmp_path.glob("*/*/checkpoints/last.ckpt")))
    assert step >= 2
    assert f"error: interrupted (SIGINT); {last} is of step {step}\n" in errors
    assert "Traceback" not in errors


@pytest.fixture(scope="module")
def proscale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released PRO-SCALE checkpoint, but for the values of its weights."""
    file = tmp_path_factory.mktemp("weights") / "proscale.pth"
    torch.save({"model": weights(published.proscale_resnet50())}, file)
    return file


@pytest.mark.slow
def test_weights_settle_what_nobody_asked_for(proscale: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Schedule, pixel embedding and the published re-calibration follow the file, and it is said."""
    expected = [
        "model/pixel_embedding=light",
        "model/recalibration=linear",
        "schedule=[3, 3, 3]",
        "model.pixel_decoder.encoder.recalibrate.legacy_layout=true",
    ]
    for experiment, settled in (("mask2former_coco", expected), ("proscale_coco", expected[-1:])):
        assert check([f"+experiment={experiment}", f"model.weights={proscale}"]) == settled
        assert ", ".join(settled) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("schedule=[2,2,2]", "schedule=[2, 2, 2], but model.weights="),
        ("model/backbone=swin_tiny", "has model/backbone=resnet50"),
        ("num_queries=50", "has num_queries=100"),
        ("+experiment=proscale_shapes", "has "),
    ],
)
def test_what_was_asked_for_must_agree_with_the_weights(
    asked: str, message: str, proscale: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting that an experiment or the command line changed is not changed back behind one's back."""
    assert message in error_line(capsys, lambda: check([asked, f"model.weights={proscale}"]))


@pytest.mark.parametrize("asked", [["+experiment=eco_parent_coco"], ["exits=[2,4,6]"]])
def test_weights_without_a_gate_leave_the_exits_to_the_experiment(asked: list[str], tmp_path: Path) -> None:
    """A parent that starts from a published Mask2Former has the exits of its experiment, not the last one alone."""
    torch.save({"model": weights(published.mask2former_resnet50())}, tmp_path / "zoo.pth")
    started = [*asked, f"model.weights={tmp_path / 'zoo.pth'}"]
    assert configure(started).exits == configure(asked).exits is not None


def test_a_checkpoint_gives_settings_and_no_flags(tmp_path: Path) -> None:
    """Of what a checkpoint says it was trained with, nothing reaches Hydra itself."""
    injected = [
        "--experimental-rerun=x",
        "--cfg=job",
        "+hydra.callbacks.x._target_=os.system",
        " hydra.run.dir=/",
        "dim=64",
    ]
    torch.save({"hyper_parameters": {"overrides": injected}}, tmp_path / "last.ckpt")
    assert saved_overrides([f"ckpt_path={tmp_path / 'last.ckpt'}"]) == ["dim=64", f"ckpt_path={tmp_path / 'last.ckpt'}"]


@pytest.mark.slow
def test_a_sweep_has_weights_of_one_architecture(
    proscale: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What weights settle holds for every job: neither another model's weights nor another setting slip through."""
    torch.save({"model": weights(published.mask2former_resnet50())}, tmp_path / "other.pth")
    both = f"model.weights={proscale},{tmp_path / 'other.pth'}"
    assert "must be of one architecture" in error_line(capsys, lambda: check([both], multirun=True))
    asked = ["num_queries=100,50", f"model.weights={proscale}"]
    assert "num_queries=50, but model.weights=" in error_line(capsys, lambda: check(asked, multirun=True))


@pytest.mark.slow
def test_published_weights_can_be_trained_on_with_other_classes(
    proscale: Path, configure: Callable[..., DictConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """From a file to a step of training, with the class head left out by choice; what is trained says all it needs."""
    small = ["data.train.size=64", "image_size=[64,64]", *TINY_SHAPES]
    start = [f"model.weights={proscale}", "model.drop_class_head=true", *small]
    overrides = [*start, *check(start)]
    task, data, trainer = build_run(configure(*overrides), overrides)
    trainer.fit(task, data)
    proscale_ = tmp_path / "run" / "checkpoints" / "last.ckpt"
    again = saved_overrides([f"ckpt_path={proscale_}"])
    assert "schedule=[3, 3, 3]" in again
    assert not any(override.startswith(("model.weights", "model.drop_class_head")) for override in again)
