"""Every experiment that ships builds and runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from omegaconf import DictConfig

from src.compose import compose
from src.data.exit_table import read
from src.data.export import export_cityscapes, export_coco
from src.data.shapes import Shapes
from src.models.gate import INPUTS
from tests.conftest import ROOT, TINY, TINY_SHAPES
from tests.tables import write_table

GATES = sorted(file.stem for file in (ROOT / "conf" / "experiment").glob("eco_gate_*.yaml"))  # need an exit table
ORACLES = sorted(file.stem for file in (ROOT / "conf" / "experiment").glob("eco_oracle_*.yaml"))  # are for src.label
EXPERIMENTS = sorted({file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml")} - {*GATES, *ORACLES})
SMALL_MODEL = [
    "dim=32",
    "num_queries=5",
    "model.decoder.num_layers=2",
    "model/backbone=timm",
    "model.backbone.name=resnet10t",
]


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in COCO's folders and formats."""
    return exported(export_coco, tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in Cityscapes' folders and formats."""
    return exported(export_cityscapes, tmp_path_factory.mktemp("cityscapes"))


def exported(export: Callable[[Shapes, Path, str], None], root: Path) -> Path:
    """A folder with four scenes to train on and four to validate with."""
    for split, seed in (("train", 0), ("val", 1)):
        export(Shapes(4, size=64, seed=seed), root, split)
    return root


def fit(cfg: DictConfig) -> dict[str, float]:
    task, data, trainer = compose(cfg)
    trainer.fit(task, data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def small_data(experiment: str, coco: Path, cityscapes: Path) -> list[str]:
    """Settings that give an experiment a few small images of its layout."""
    sizes = ["data.augment.size=64", "data.resize.short=64", "data.resize.long=64"]
    if "coco" in experiment:
        return [*TINY, f"data.root={coco}", *sizes]
    if "cityscapes" in experiment:
        return [*TINY, f"data.root={cityscapes}", *sizes, "data.augment.short=64"]
    return TINY_SHAPES


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_a_batch_and_validates(
    experiment: str, configure: Callable[..., DictConfig], coco: Path, cityscapes: Path, tmp_path: Path
) -> None:
    """One step and one validation, on made scenes; scores and pictures come out."""
    data = small_data(experiment, coco, cityscapes)
    scores = fit(configure(f"+experiment={experiment}", *data, *SMALL_MODEL, "image_size=[64,64]"))
    assert 0 <= scores["val/pq"] <= 100
    assert {"val/ap", "val/miou", "train/loss"} <= set(scores)
    assert (tmp_path / "run" / "scores.json").is_file()
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    assert list((tmp_path / "run" / "pictures").glob("*.png"))


@pytest.mark.parametrize("experiment", ORACLES)
def test_every_oracle_labels(
    experiment: str, configure: Callable[..., DictConfig], coco: Path, cityscapes: Path, tmp_path: Path
) -> None:
    """The training images, at every exit of the parent."""
    settings = [*small_data(experiment, coco, cityscapes), *SMALL_MODEL, "callbacks=[labels]"]
    task, data, trainer = cast(Any, compose(configure(f"+experiment={experiment}", *settings)))
    data.label(tmp_path / "table", "train", shard_size=3, source="", settings={}, **task.about())
    trainer.predict(task, data, return_predictions=False)
    table = read(tmp_path / "table")
    assert len(table) == len(data.train_scenes)
    assert table.about.exits == task.model.exits
    assert (table.cost.diff(dim=1) > 0).all()


@pytest.mark.parametrize("experiment", GATES)
def test_every_gate_trains_and_validates(experiment: str, configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """An epoch on a made-up table; a report and checkpoints come out."""
    table = write_table(tmp_path / "table", num_images=40, inputs=list(INPUTS))
    scores = fit(configure(f"+experiment={experiment}", f"data.table={table}", "trainer.max_epochs=1"))
    assert {"train/loss", "val/regret", "val/quality/random", "val/quality/exit6"} <= set(scores)
    assert (tmp_path / "run" / "gate.json").is_file()
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize(
    ("segmentation", "data", "score"),
    [("instance", "coco_instances", "ap"), ("instance", "coco_panoptic", "ap"), ("semantic", "coco_panoptic", "miou")],
)
def test_one_setting_makes_it_instance_or_semantic(
    segmentation: str, data: str, score: str, configure: Callable[..., DictConfig], coco: Path
) -> None:
    """The same experiment learns and is scored on another task."""
    overrides = [f"data={data}", f"segmentation={segmentation}", f"data.root={coco}", "data.augment.size=64"]
    sizes = ["data.resize.short=64", "data.resize.long=64", "image_size=[64,64]"]
    scores = fit(configure("+experiment=proscale_coco", *TINY, *SMALL_MODEL, *overrides, *sizes))
    assert f"val/{score}" in scores
    assert "val/pq" not in scores


@pytest.mark.parametrize(
    "overrides",
    [
        ["exits=[1,2,3]"],
        ["schedule=[2,0,1]", "exits=[1,3]"],
        ["schedule=[0,0,9]", "exits=[1,2,3,4,5,6,7,8,9]", "task.exits_per_step=2", "task.alpha=k*k/10"],
        ["model.activation_checkpointing=true"],
        ["trainer.precision=bf16-mixed"],
        ["trainer.precision=bf16-mixed", "model.pixel_decoder.mixed_precision=true"],
        ["batch_size=4", "batch_size_per_device=2"],
        ["callbacks=[default,ema]"],
        ["logger=wandb"],
        ["model.pixel_decoder.encoder.recalibrate.legacy_layout=true"],
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_settings_work(
    overrides: list[str], configure: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exits, precision, checkpointing, accumulation, averaging and W&B without a key: a value each."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    scores = fit(configure("+experiment=proscale_shapes", *TINY_SHAPES, *SMALL_MODEL, "image_size=[64,64]", *overrides))
    assert "val/quality" in scores
    if overrides[0] == "exits=[1,2,3]":
        assert {"val/pq/exit1", "val/pq/exit2", "val/pq/exit3"} <= set(scores)


@pytest.mark.parametrize(
    "backbone",
    [
        "swin_tiny_patch4_window7_224",
        "tf_efficientnet_lite0",
        "convnext_atto",
        "mvitv2_tiny",
        "resnet50",
    ],
)
def test_backbones_by_name(backbone: str, configure: Callable[..., DictConfig]) -> None:
    """Any timm model with strides 4 to 32 serves, at a size it was not made for."""
    options = ["model/backbone=swin_tiny"] if "swin" in backbone else []
    small = ["dim=32", "num_queries=5", "model.decoder.num_layers=2", "model.backbone.pretrained=false"]
    task, *_ = compose(
        configure("+experiment=mask2former_coco", "data=shapes", *options, f"model.backbone.name={backbone}", *small)
    )
    (predictions,) = task([torch.randint(0, 255, (3, 70, 100), dtype=torch.uint8)]).values()
    assert predictions[-1].mask_logits.shape == (1, 5, 24, 32)
