"""Every experiment that ships builds and runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from omegaconf import DictConfig

from src.config.build import build_run
from src.config.checkpoints import take_weights
from src.config.saved_settings import saved_overrides
from src.data.export import export_cityscapes, export_coco, export_index_masks
from src.data.formats.categories import read_categories
from src.data.shapes import Shapes
from src.exit_table.table import read_table
from src.models.gate import INPUTS
from src.weights.checkpoint import fingerprint
from tests.helpers import ROOT, SIZES, SMALL_MODEL, TINY, TINY_SHAPES, export_custom
from tests.tables import write_table

pytestmark = pytest.mark.slow

GATES = sorted(file.stem for file in (ROOT / "conf" / "experiment").glob("eco_gate_*.yaml"))  # need an exit table
ORACLES = sorted(file.stem for file in (ROOT / "conf" / "experiment").glob("eco_oracle_*.yaml"))  # are for src.label
OTHERS = {"finetune", *GATES, *ORACLES}  # finetune needs weights
SEMANTIC = ("animals", "camvid", "nyuv2")
VARIANTS = sorted(file.stem for file in (ROOT / "conf" / "variant").glob("*.yaml"))
EXPERIMENTS = sorted({file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml")} - OTHERS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each layout, with four scenes to train on and four to validate with."""
    root = tmp_path_factory.mktemp("made")
    for split, seed in (("train", 0), ("val", 1)):
        scenes = Shapes(4, size=64, seed=seed)
        export_coco(scenes, root / "coco", split)
        export_ade20k(scenes, root / "ade20k", split)
        export_custom(scenes, root / "custom", split)
        export_photographs(scenes, root / "animals", split, num_classes=7)
        export_photographs(scenes, root / "nyuv2", split, num_classes=40)
        masks = (root / "camvid" / split, root / "camvid" / f"{split}annot")
        export_index_masks(scenes, *masks, values_of("camvid"), unlabelled=11)
        scenes.categories = read_categories("cityscapes")[-8:]
        export_cityscapes(scenes, root / "cityscapes", split)
    return root


def values_of(classes: str) -> list[int]:
    """What the classes of made scenes are in masks of a benchmark: its first ones."""
    return [category.id for category in read_categories(classes)[:8]]


def export_ade20k(scenes: Shapes, root: Path, split: str) -> None:
    """Scenes in ADE20K's folders: index masks, and COCO's two formats as it is prepared in."""
    long = {"train": "training", "val": "validation"}[split]
    export_coco(scenes, root, split)
    (root / "images").mkdir(exist_ok=True)
    (root / f"{split}2017").rename(root / "images" / long)
    (root / f"panoptic_{split}2017").rename(root / f"ade20k_panoptic_{split}")
    for kind in ("panoptic", "instance"):
        found = next((root / "annotations").glob(f"{kind}*_{split}2017.json"))
        found.rename(root / f"ade20k_{kind}_{split}.json")
    masks = (root / "images" / long, root / "annotations" / long)
    export_index_masks(scenes, *masks, values_of("ade20k"), unlabelled=0)


def export_photographs(scenes: Shapes, root: Path, split: str, num_classes: int) -> None:
    """Scenes in the folders of data of one's own, with a class list; classes that it lacks are void."""
    values = [value if value < num_classes else 255 for value in range(8)]
    export_index_masks(scenes, root / split, root / f"{split}_masks", values, unlabelled=255)
    lines = [f"{value},class {value}" for value in range(num_classes)]
    (root / "classes.csv").write_text("\n".join(["id,name", *lines]))


def fit(cfg: DictConfig) -> dict[str, float]:
    task, data, trainer = build_run(cfg)
    trainer.fit(task, data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def is_detector(experiment: str) -> bool:
    """Whether an experiment predicts boxes."""
    return not {"detr", "dino"}.isdisjoint(experiment.split("_"))


def small_model(experiment: str) -> list[str]:
    """Settings of a small model; torch refuses the norm of a stride 64 level of one pixel with 32 channels."""
    return [*SMALL_MODEL, "dim=64"] if is_detector(experiment) else SMALL_MODEL


def small_data(experiment: str, made: Path) -> list[str]:
    """Settings that give an experiment a few small images of its layout."""
    data_set = experiment.split("_")[-1]
    if is_detector(experiment):
        of_masks = ("task.criterion.num_points",)
        tiny = [one for one in (TINY_SHAPES if data_set == "shapes" else TINY) if not one.startswith(of_masks)]
        jitter = ["data.augment.shorts=[64]", "data.augment.crop_shorts=[64]", "data.augment.crop_sides=[40,64]"]
        return tiny if data_set == "shapes" else [*tiny, f"data.root={made / data_set}", *jitter, *SIZES[1:]]
    if data_set == "shapes":
        return TINY_SHAPES
    jitter = [] if data_set == "coco" else ["data.augment.short=64"]
    return [*TINY, f"data.root={made / data_set}", *SIZES, *jitter]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_a_batch_and_validates(
    experiment: str, configure: Callable[..., DictConfig], made: Path, tmp_path: Path
) -> None:
    """One step and one validation, on made scenes; scores and pictures come out."""
    data = small_data(experiment, made)
    scores = fit(configure(f"+experiment={experiment}", *data, *small_model(experiment), "image_size=[64,64]"))
    expected = {"val/miou"} if experiment.endswith(SEMANTIC) else {"val/pq", "val/ap", "val/miou"}
    expected = {"val/box_ap"} if is_detector(experiment) else expected
    names = ("val/pq", "val/ap", "val/miou", "val/box_ap")
    assert {name for name in names if 0 <= scores.get(name, -1) <= 100} == expected
    assert "train/loss" in scores
    assert (tmp_path / "run" / "scores.json").is_file()
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    assert list((tmp_path / "run" / "pictures").glob("*.png"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_a_batch_and_validates(
    variant: str, configure: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """One step and one validation; scores and costs come out, and its checkpoint is read again."""
    overrides = ["+experiment=mask2former_shapes", f"variant={variant}", *TINY_SHAPES, *SMALL_MODEL]
    cfg = configure(*overrides, "image_size=[64,64]")
    task, data, trainer = build_run(cfg, overrides)
    trainer.fit(task, data)
    moved = trainer.optimizers[0].state  # weights that a gradient has reached
    assert [name for name, weight in task.named_parameters() if weight.requires_grad and weight not in moved] == []
    (row,) = json.loads((tmp_path / "run" / "scores.json").read_text())["exits"].values()
    assert 0 <= row["pq"] <= 100
    assert row["encoder_gflops"] < row["total_gflops"]

    cfg = configure(*saved_overrides([f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt"]))
    take_weights(cfg, "evaluate")
    again, *_ = cast(Any, build_run(cfg))
    assert cfg.variant == variant
    assert fingerprint(again.model) == fingerprint(cast(Any, task).model)


@pytest.mark.parametrize("experiment", ORACLES)
def test_every_oracle_labels(experiment: str, configure: Callable[..., DictConfig], made: Path, tmp_path: Path) -> None:
    """The training images, at every exit of the parent."""
    settings = [*small_data(experiment, made), *small_model(experiment), "callbacks=[labels]"]
    task, data, trainer = cast(Any, build_run(configure(f"+experiment={experiment}", *settings)))
    data.label(tmp_path / "table", "train", shard_size=3, source="", settings={}, **task.about())
    trainer.predict(task, data, return_predictions=False)
    table = read_table(tmp_path / "table")
    assert len(table) == len(data.train_scenes)
    assert table.info.exits == task.model.exits
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
    ("experiment", "setting", "score"),
    [
        ("proscale_coco", "data=coco_instances", "ap"),
        ("proscale_coco", "segmentation=instance", "ap"),
        ("proscale_coco", "segmentation=semantic", "miou"),
        ("proscale_ade20k", "data=ade20k_instances", "ap"),
        ("proscale_ade20k", "data=ade20k_semantic", "miou"),
        ("proscale_cityscapes", "data=cityscapes_instances", "ap"),
        ("proscale_cityscapes", "data=cityscapes_semantic", "miou"),
        ("proscale_camvid", "segmentation=panoptic", "pq"),
    ],
)
def test_one_setting_makes_it_instance_or_semantic(
    experiment: str, setting: str, score: str, configure: Callable[..., DictConfig], made: Path
) -> None:
    """The same experiment learns and is scored on another task."""
    overrides = [*small_data(experiment, made), *SMALL_MODEL, setting, "image_size=[64,64]"]
    scores = fit(configure(f"+experiment={experiment}", *overrides))
    assert f"val/{score}" in scores
    assert ("val/pq" in scores) == (score == "pq")


@pytest.mark.parametrize(("kind", "score"), [("panoptic", "pq"), ("instances", "ap"), ("semantic", "miou")])
def test_data_of_ones_own_goes_on_from_other_classes(
    kind: str, score: str, configure: Callable[..., DictConfig], made: Path, tmp_path: Path
) -> None:
    """In each layout, from weights of another number of classes; what is trained is scored with its own class head."""
    fit(configure("+experiment=proscale_camvid", *small_data("proscale_camvid", made), *SMALL_MODEL))
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    weights = file.rename(tmp_path / "camvid.ckpt")
    overrides = [f"data=custom_{kind}", f"data.root={made / 'custom' / kind}", *TINY, *SIZES, *SMALL_MODEL]
    like = ["model/pixel_embedding=light", "model/recalibration=linear", "schedule=[1,1,1]"]
    like += [f"model.pixel_decoder.encoder.{name}" for name in ("num_heads=4", "num_points=2", "dim_feedforward=256")]
    like += [f"model.decoder.{name}" for name in ("num_heads=4", "dim_feedforward=256")]
    overrides = ["+experiment=finetune", *overrides, *like, f"model.weights={weights}"]
    task, data, trainer = build_run(configure(*overrides), overrides)
    trainer.fit(task, data)
    assert 0 <= trainer.callback_metrics[f"val/{score}"] <= 100

    cfg = configure(*saved_overrides([f"ckpt_path={file}"]))
    take_weights(cfg, "evaluate")
    again, *_ = cast(Any, build_run(cfg))
    trained = cast(Any, task).model.decoder.class_embed.weight
    assert torch.equal(again.model.decoder.class_embed.weight, trained)


def test_finetuning_asks_for_weights(configure: Callable[..., DictConfig], made: Path) -> None:
    """Without weights there is no class head to leave out; it is said rather than trained from scratch."""
    with pytest.raises(ValueError, match=r"of which weights\? Expected model.weights=SOURCE"):
        build_run(configure("+experiment=finetune", f"data.root={made / 'custom' / 'panoptic'}", *TINY, *SMALL_MODEL))


def test_instances_need_things(configure: Callable[..., DictConfig], made: Path) -> None:
    """Classes alone cannot be learnt as instances; it is said before anything runs."""
    overrides = [*small_data("proscale_camvid", made), *SMALL_MODEL, "segmentation=instance"]
    with pytest.raises(ValueError, match="segmentation=instance: none of the data's 11 classes is a thing"):
        build_run(configure("+experiment=proscale_camvid", *overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ["exits=[1,2,3]"],
        ["schedule=[2,0,1]", "exits=[1,3]"],
        ["schedule=[0,0,9]", "exits=[1,2,3,4,5,6,7,8,9]", "task.exits_per_step=2", "task.alpha=k*k/10"],
        ["model.activation_checkpointing=true"],
        ["model.activation_checkpointing=[encoder]"],
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
    task, *_ = build_run(
        configure("+experiment=mask2former_coco", "data=shapes", *options, f"model.backbone.name={backbone}", *small)
    )
    (predictions,) = task([torch.randint(0, 255, (3, 70, 100), dtype=torch.uint8)]).values()
    assert predictions[-1].mask_logits.shape == (1, 5, 24, 32)
