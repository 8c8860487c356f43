"""Models are scored on data of the classes that they have learnt."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.config.build import build_run
from src.config.checkpoints import take_weights
from src.config.class_names import difference, learnt_categories
from src.config.command_line import configure
from src.data.export import export_index_masks
from src.data.shapes import Shapes
from src.predictor import Predictor
from tests.helpers import SIZES, SMALL_MODEL, TINY

NAMES = ["sky", "grass", "water", "traffic light", "Ball", "box", "star", "ring"]


def settings(root: Path) -> list[str]:
    """Of a small model and data of one's own."""
    data = ["data=custom_semantic", f"data.root={root}", "data.augment.short=64"]
    return ["+experiment=proscale_camvid", *data, *TINY, *SIZES, *SMALL_MODEL, "logger=[]", f"paths.run={root / 'run'}"]


def name_classes(root: Path, names: list[str], ids: Callable[[int], int] = lambda place: place) -> None:
    (root / "classes.csv").write_text("\n".join(["id,name", *(f"{ids(n)},{name}" for n, name in enumerate(names))]))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that has learnt NAMES; its folder holds data."""
    root = tmp_path_factory.mktemp("learnt")
    for split in ("train", "val"):
        export_index_masks(Shapes(2, size=64), root / split, root / f"{split}_masks", range(8), 255)
    name_classes(root, NAMES)
    task, _, trainer = build_run(configure([*settings(root), "callbacks=[]"]))
    trainer.strategy.connect(task)
    trainer.save_checkpoint(root / "model.ckpt")
    return root / "model.ckpt"


def made(file: Path, primary: str, *others: str) -> Any:
    """The task of a command."""
    cfg = configure([*settings(file.parent), f"ckpt_path={file}", *others], primary)
    if primary != "config":
        take_weights(cfg, primary)
    return build_run(cfg)[0]


SCORING = pytest.mark.parametrize("command", ["evaluate", "label"])
RENAMED = ["sky", "grass", "water", "lamp", "Ball", "box", "star", "ring"]
SWAPPED = ["sky", "water", "grass", *NAMES[3:]]


@SCORING
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (RENAMED, r"data have: class 3 is 'lamp' in the data, learnt as 'traffic light'; choose the data"),
        (SWAPPED, r"the same names in another order: class 1 is 'water' in the data, learnt as 'grass', class 2 is"),
        (NAMES[:7], r"knows 8 classes and the data have 7: choose the data that it was trained on"),
    ],
)
def test_other_classes_are_not_scored(command: str, names: list[str], said: str, learnt: Path) -> None:
    """Renamed, in another order, or more or fewer: it is said which, without advice that helps training only."""
    name_classes(learnt.parent, names)
    with pytest.raises(ValueError, match=said) as refused:
        made(learnt, command)
    assert "drop_class_head" not in str(refused.value)


@SCORING
def test_who_knows_better_says_so(command: str, learnt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Then classes are taken by their places, and the difference is said."""
    name_classes(learnt.parent, RENAMED)
    assert made(learnt, command, "check_classes=false").categories[3].name == "lamp"
    assert "class 3 is 'lamp' in the data, learnt as 'traffic light'" in capsys.readouterr().err


@SCORING
def test_the_same_classes_may_be_written_otherwise(
    command: str, learnt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With other ids, letters and spaces; nothing is said."""
    name_classes(learnt.parent, [f" {name.upper().replace(' ', '  ')}" for name in NAMES], lambda place: 10 + place)
    assert made(learnt, command).categories[0].id == 10
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_training_goes_on_from_renamed_classes_and_says_so(learnt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a place stands for may change where it is learnt on; with a new class head there is nothing to say."""
    name_classes(learnt.parent, SWAPPED)
    weights = ["ckpt_path=null", f"model.weights={learnt}"]
    made(learnt, "config", *weights)
    assert "warning: model.weights=" in (said := capsys.readouterr().err)
    assert "in another order: class 1 is 'water' in the data, learnt as 'grass'" in said
    made(learnt, "config", *weights, "model.drop_class_head=true")
    assert capsys.readouterr().err == ""
    name_classes(learnt.parent, NAMES[:7])
    with pytest.raises(ValueError, match=r"knows 8 classes and the data have 7: .*drop_class_head=true"):
        made(learnt, "config", *weights)


def test_a_run_does_not_go_on_with_other_classes(learnt: Path) -> None:
    """Its scores and its best checkpoint would be of both."""
    name_classes(learnt.parent, RENAMED)
    with pytest.raises(ValueError, match=r"ckpt_path=.* class 3 is 'lamp'.*new run from its weights: model.weights="):
        made(learnt, "config")
    name_classes(learnt.parent, NAMES)
    made(learnt, "config")


@pytest.mark.slow
def test_weights_that_do_not_name_their_classes_are_scored(learnt: Path, tmp_path: Path) -> None:
    """There is nothing to compare; only the number has to be right."""
    torch.save(torch.load(learnt, weights_only=True)["state_dict"], file := tmp_path / "plain.pth")
    weights = ["ckpt_path=null", f"model.weights={file}"]
    name_classes(learnt.parent, RENAMED)
    made(learnt, "evaluate", *weights)
    name_classes(learnt.parent, NAMES[:7])
    with pytest.raises(ValueError, match="knows 8 classes and the data have 7: choose the data"):
        made(learnt, "evaluate", *weights)


@pytest.mark.slow
def test_predictions_have_the_names_that_were_learnt(learnt: Path, tmp_path: Path) -> None:
    """Whatever the data are called now, and however the checkpoint is named; `categories` names them otherwise."""
    name_classes(learnt.parent, SWAPPED)
    (tmp_path / "names.csv").write_text((learnt.parent / "classes.csv").read_text())
    own = [f"data.root={learnt.parent}", *settings(learnt.parent), f"model.weights={learnt}", "ckpt_path=null"]
    assert [one.name for one in Predictor(configure(own, "predict")).categories] == NAMES
    others = Predictor(configure([*own, f"categories={tmp_path / 'names.csv'}"], "predict"))
    assert [one.name for one in others.categories] == SWAPPED
    torch.save(torch.load(learnt, weights_only=True)["state_dict"], file := tmp_path / "plain.pth")
    (tmp_path / "few.csv").write_text("id,name\n0,sky")
    with pytest.raises(ValueError, match="knows 8 classes and the data have 1: expected categories= with as many"):
        Predictor(configure([*own, f"model.weights={file}", f"categories={tmp_path / 'few.csv'}"], "predict"))


def test_a_few_of_many_are_named() -> None:
    """With how many there are in all."""
    assert difference(["a", "b"], ["A", " b "]) is None
    said = difference([f"a{n}" for n in range(9)], [f"b{n}" for n in range(9)])
    assert said is not None
    assert said.endswith("class 2 is 'b2' in the data, learnt as 'a2', and 6 more")


@pytest.mark.parametrize("value", [80, ["sky", "grass"], [{"id": 1}], [None]])
def test_another_projects_setting_of_that_name_says_nothing(value: Any, tmp_path: Path) -> None:
    """A checkpoint of Lightning may keep anything under `categories`."""
    torch.save({"state_dict": {}, "hyper_parameters": {"categories": value}}, tmp_path / "other.ckpt")
    assert learnt_categories(str(tmp_path / "other.ckpt")) is None
