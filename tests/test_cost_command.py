"""`python -m src.cost`: what a model costs, in three formats, for a size, several sizes or a data set."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import DictConfig

from src.config.build import build_run
from src.config.command_line import check, run
from src.cost import cost
from src.metrics.cost import count
from tests.config.test_command_line import SHAPES
from tests.helpers import error_line
from tests.weights import published
from tests.weights.published import weights

SMALL = ["+experiment=proscale_coco", "model/backbone=timm", "model.backbone.name=resnet10t", "dim=64"]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """What the command prints, from an empty folder, in which it leaves nothing."""

    def ask(*arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        before = set(tmp_path.iterdir())
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["src.cost"])
        run(cost, list(arguments), "cost")
        assert set(tmp_path.iterdir()) == before
        return capsys.readouterr().out

    return ask


@pytest.mark.slow
def test_json_is_one_object_with_its_unit(ask: Callable[..., str]) -> None:
    """Without any data at hand: the papers' Cityscapes model, for any schedule and size."""
    arguments = ["+experiment=proscale_cityscapes", "model/backbone=swin_tiny", "schedule=[1,1,1]", "format=json"]
    figures = json.loads(ask(*arguments, "image_size=[1024,2048]"))
    assert "GMAC" in figures["unit"]
    assert figures["num_classes"] == 19
    assert figures["pixel_decoder"] == pytest.approx(55.138, abs=5e-4)
    assert figures["total"] == pytest.approx(
        sum(figures[p] for p in ("backbone", "pixel_decoder", "upsampling", "decoder", "gate", "postprocessing"))
    )
    assert figures["encoder_layers"] == pytest.approx(sum(figures["layers"]) + figures["recalibration"])
    assert figures["exits"] == {"3": figures["total"]}


@pytest.mark.slow
def test_csv_has_a_row_for_each_size_and_exit(ask: Callable[..., str]) -> None:
    """Two sizes and two exits: four rows, deeper and larger ones dearer."""
    text = ask(*SMALL, "exits=[4,9]", "sizes=[[64,64],[96,128]]", "format=csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["size"], row["exit"]) for row in rows] == [(s, e) for s in ("64x64", "96x128") for e in ("4", "9")]
    assert [float(row["total"]) for row in rows] == sorted(float(row["total"]) for row in rows)
    assert rows[0]["layer9"] == ""
    assert float(rows[1]["layer9"]) > 0


@pytest.mark.slow
def test_the_table_lists_every_part(ask: Callable[..., str]) -> None:
    """What a person reads: parts, layers, exits, and what is in no sum."""
    text = ask(*SMALL, "exits=[3,9]", "image_size=[64,64]")
    for words in ("exit 3", "exit 9", "backbone", "layer 9", "stride 4 path", "(deformable sampling)", "GMAC", "64x64"):
        assert words in text


@pytest.mark.slow
def test_a_data_set_is_averaged_as_its_images_are_resized(ask: Callable[..., str], tmp_path: Path) -> None:
    """From the annotation file alone: two images, resized and padded as in evaluation, answered at their own size."""
    file = tmp_path / "val.json"
    file.write_text(json.dumps({"images": [{"height": 30, "width": 40}, {"height": 40, "width": 20}]}))
    sizes = ["data.resize.short=60", "data.resize.long=100"]
    together = json.loads(ask(*SMALL, *sizes, f"sizes={file}", "format=json"))
    assert together["size"] == f"mean of the 2 images of {file}"
    singly = json.loads(ask(*SMALL, "sizes=[[60,80],[100,50]]", "format=json"))["sizes"]
    for part in ("backbone", "pixel_decoder", "decoder"):
        assert together[part] == pytest.approx((singly[0][part] + singly[1][part]) / 2)
    padded, own = 64 * 96 + 128 * 64, 30 * 40 + 40 * 20  # pixels of both images
    by_hand = (100 * 4 * (padded + own) + 100 * 133 * own) / 2
    assert 1e9 * together["postprocessing"] == pytest.approx(by_hand)


@pytest.mark.slow
def test_weights_are_asked_what_they_are(ask: Callable[..., str], tmp_path: Path) -> None:
    """The cost of a published checkpoint: backbone, schedule, exits and gate are read off it."""
    state = weights(published.eco_swin_tiny())
    torch.save({"model": state}, tmp_path / "eco.pth")
    figures = json.loads(
        ask(
            "+experiment=mask2former_coco",
            "image_size=[1024,2048]",
            f"model.weights={tmp_path / 'eco.pth'}",
            "format=json",
        )
    )
    published_totals = [411.981, 443.448, 474.914, 506.381, 537.848]
    assert figures["num_classes"] == 19  # the file's, not COCO's
    assert list(figures["exits"].values()) == pytest.approx(published_totals, rel=1e-5)
    assert 1e9 * figures["gate"] == pytest.approx(1280)


@pytest.mark.slow
def test_weights_of_another_model_are_refused(
    configure: Callable[..., DictConfig], ask: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What training saves does not say of which model it is: no cost of a model that it does not fit is told."""
    task = build_run(configure(*SHAPES)).task
    torch.save({"state_dict": task.state_dict()}, tmp_path / "own.ckpt")
    arguments = [*SHAPES, f"model.weights={tmp_path / 'own.ckpt'}", "format=json"]
    assert json.loads(ask(*arguments))["total"] == count(task.model, [64, 64])[3].total
    assert "own.ckpt is of another architecture" in error_line(capsys, lambda: ask(*arguments, "num_queries=7"))


@pytest.mark.slow
def test_training_shows_the_same_figures(configure: Callable[..., DictConfig], ask: Callable, tmp_path: Path) -> None:
    """Scores and hyper-parameters of a run hold what the command prints."""
    overrides = [*SHAPES, "exits=[1,3]"]
    task, data, trainer = build_run(configure(*overrides, "logger=csv"))
    trainer.fit(task, data)
    printed = json.loads(ask(*overrides, "format=json"))
    saved = json.loads((tmp_path / "run" / "scores.json").read_text())["exits"]
    assert {depth: row["total_gflops"] for depth, row in saved.items()} == printed["exits"]
    hparams = yaml.safe_load((tmp_path / "run" / "hparams.yaml").read_text())
    assert hparams["gflops/exit3/pixel_decoder"] == printed["pixel_decoder"]
    assert count(task.model, [64, 64])[3].total == printed["total"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("format=xml", "format=xml: expected table, json or csv"),
        ("sizes=[64,64]", r"sizes=[64, 64]: expected a list of [height, width]"),
        ("sizes=[[16,64]]", "expected a list of [height, width], all from 32"),
        ("image_size=[1024]", "image_size=[1024]: expected [height, width]"),
        ("+data.num_classes=-5", "data.num_classes=-5: expected a whole number from 1"),
        ("model.weights=", "a file, a folder or a hub name"),
        ("fromat=json", "'fromat', did you mean 'format'"),
        ("hydra.run.dir=/proc/nowhere", "nothing can be written in"),
    ],
)
def test_mistakes_end_in_one_line(override: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Values that cannot be are named before anything is counted."""
    assert message in error_line(capsys, lambda: check([override], primary="cost"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; expected a COCO annotation file"),
        ("{", "not readable as JSON"),
        ('{"images": []}', "has none"),
        ('{"images": [{"height": 3}]}', "height and width from 1"),
        ('{"images": [{"height": 0, "width": 3}]}', "height and width from 1"),
        ("[]", "expected COCO's layout"),
    ],
)
def test_a_file_without_sizes_is_named(
    content: str | None, message: str, ask: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Missing, broken or without sizes: the file and what was expected."""
    file = tmp_path / "val.json"
    if content is not None:
        file.write_text(content)
    line = error_line(capsys, lambda: ask(*SMALL, f"sizes={file}"))
    assert message in line
    assert str(file) in line


@pytest.mark.slow
def test_a_size_that_the_model_does_not_take_is_named(
    ask: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Larger than any memory could be, or not what a backbone of fixed size wants: one line with the size."""
    for arguments in (["sizes=[[999999999,999999999]]"], ["model.backbone.name=hiera_tiny_224", "image_size=[64,96]"]):
        line = error_line(capsys, lambda arguments=arguments: ask(*SMALL, *arguments))  # type: ignore[misc]
        assert "an image of " in line
        assert "the model does not take it" in line


def test_a_checkpoint_that_is_not_there_is_named(ask: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else is counted in its place."""
    assert "ckpt_path=nothing.ckpt: no such file" in error_line(capsys, lambda: ask(*SMALL, "ckpt_path=nothing.ckpt"))
