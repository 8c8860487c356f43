"""Images that have a flaw, left out on request, and what is told of data before the first step."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.testing import assert_close

from src.callbacks.data_problems import lines
from src.data.coco import CocoInstances, CocoPanoptic
from src.data.export import export_coco, export_index_masks
from src.data.index_masks import IndexMasks
from src.data.module import SegmentationData
from src.data.problems import DataError, Kind, Problem
from src.data.scenes import Scenes
from src.data.shapes import Shapes
from src.data.transforms import ResizeShortestEdge

SCENES = Shapes(8, size=64, seed=5, crowd=0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    export_coco(SCENES, tmp_path, "val")
    return tmp_path


def data(make: Callable[..., Scenes], on_flaw: str = "refuse", num_workers: int = 0) -> SegmentationData:
    resize = ResizeShortestEdge()
    return SegmentationData(make, make, lambda s, rng: s, resize, "panoptic", 1, 1, num_workers, 0, on_flaw=on_flaw)


def coco(root: Path, layout: str = "instances") -> Callable[..., Scenes]:
    file = root / "annotations" / f"{layout}_val2017.json"
    if layout == "instances":
        return partial(CocoInstances, root / "val2017", file)
    return partial(CocoPanoptic, root / "val2017", file, root / "panoptic_val2017")


def edit(root: Path, change: Callable[[Any], Any]) -> None:
    file = root / "annotations" / "instances_val2017.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def of_image(document: Any, image_id: int) -> Any:
    return next(one for one in document["annotations"] if one["image_id"] == image_id)


def gone(root: Path) -> None:
    (root / "val2017" / "000000000003.png").unlink()


def cut_short(root: Path) -> None:
    file = root / "val2017" / "000000000003.png"
    file.write_bytes(file.read_bytes()[:300])


def other(root: Path, **values: Any) -> None:
    edit(root, lambda document: of_image(document, 3).update(values))


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (gone, Kind.MISSING),
        (cut_short, Kind.UNREADABLE),
        (partial(other, category_id=99), Kind.CATEGORY),
        (partial(other, iscrowd="no"), Kind.VALUE),
        (partial(other, segmentation=[]), Kind.OUTLINE),
        (partial(other, segmentation=[[70, 70, 90, 70, 90, 90]]), Kind.OUTSIDE),
        (partial(other, segmentation={"size": [32, 64], "counts": [2048]}), Kind.SIZE),
    ],
)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_image_with_a_flaw_is_skipped_on_request(
    root: Path, spoil: Callable[[Path], None], kind: Kind, num_workers: int
) -> None:
    """It alone, counted and kept with its flaw; the others are as they were."""
    plain = {sample.image_id: sample for sample in data(coco(root)).val_scenes}
    spoil(root)
    made = data(coco(root), "skip", num_workers)
    assert [sample.image_id for sample in made.val_scenes] == [0, 1, 2, 4, 5, 6, 7]
    assert made.num_skipped == {"val": 1}
    assert kind in {problem.kind for split, problem in made.problems if problem.breaks and split == "val"}
    for sample in made.val_scenes:
        assert_close(sample.truth, plain[sample.image_id].truth, rtol=0, atol=0)
    if kind is not Kind.OUTSIDE:  # which validation alone looks for
        with pytest.raises(DataError, match="expected"):
            [*data(coco(root)).val_scenes]


def test_data_without_a_sound_image_are_refused(root: Path) -> None:
    """Also where flaws are skipped; so is a file that cannot be read at all."""
    for file in (root / "val2017").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="has a flaw in each of its 8 images"):
        _ = data(coco(root), "skip").val_scenes
    (root / "annotations" / "instances_val2017.json").write_text("{")
    with pytest.raises(DataError, match="not readable as JSON"):
        _ = data(coco(root), "skip").val_scenes
    with pytest.raises(ValueError, match=r"data\.on_flaw=drop: expected refuse or skip"):
        data(coco(root), "drop")


def no_image_id(document: Any) -> None:
    of_image(document, 3).pop("image_id")


def two_images_of_an_id(document: Any) -> None:
    document["images"][4]["id"] = 3


@pytest.mark.parametrize("change", [no_image_id, two_images_of_an_id, lambda document: document["images"].pop(4)])
def test_a_flaw_of_no_image_is_refused_all_the_same(root: Path, change: Callable[[Any], Any]) -> None:
    """Which image it falsifies, nothing tells."""
    edit(root, change)
    with pytest.raises(DataError, match="image"):
        _ = data(coco(root), "skip").val_scenes


def warned(made: SegmentationData) -> dict[Kind, str]:
    _ = made.val_scenes
    return {problem.kind: str(problem) for _, problem in made.problems}


def test_sound_data_have_nothing_told(root: Path) -> None:
    """Nor are they read before the first step."""
    made = data(coco(root, "panoptic"))
    assert len(made.val_scenes) == 8
    assert made.problems == []


def test_what_is_read_differently_is_kept_to_be_told(root: Path) -> None:
    """Once, also where nothing is refused."""
    other(root, iscrowd="0")
    assert "has iscrowd '0', read as 0" in warned(data(coco(root)))[Kind.READ_AS]


def test_a_class_that_is_never_seen_is_told(root: Path) -> None:
    """With a likely reason where another class has its name."""

    def change(document: Any) -> None:
        document["categories"].insert(0, {"id": 0, "name": document["categories"][0]["name"]})

    edit(root, change)
    said = warned(data(coco(root)))[Kind.UNSEEN]
    assert "has no object of 1 of " in said
    assert "did a labelling tool add this one?" in said


@pytest.mark.parametrize("what", ["none", "crowds"])
def test_nothing_to_score_is_told(root: Path, what: str) -> None:
    """Where nothing is annotated, or crowds only."""

    def change(document: Any) -> None:
        document["annotations"] = [] if what == "none" else [one | {"iscrowd": 1} for one in document["annotations"]]

    edit(root, change)
    assert "has nothing to learn or to score in 8 images" in warned(data(coco(root)))[Kind.UNSCORED]


def masks(folder: Path, values: dict[int, int], ignore: list[int], number: int = 8) -> Callable[..., Scenes]:
    """Index masks of two classes that hold `values`, by value its number of rows."""
    for name in ("val", "val_masks"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.csv").write_text("id,name\n0,background\n1,crack\n")
    rows = np.repeat(list(values), list(values.values())).astype(np.uint8)
    for index in range(number):
        Image.new("RGB", (16, len(rows))).save(folder / "val" / f"{index}.png")
        Image.fromarray(np.repeat(rows[:, None], 16, 1)).save(folder / "val_masks" / f"{index}.png")
    classes = str(folder / "classes.csv")
    return partial(IndexMasks, folder / "val", folder / "val_masks", classes, ignore, [".png"], ".png")


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({0: 8, 1: 8}, set()),
        ({0: 15, 255: 1}, {Kind.UNSEEN}),
        ({0: 6, 255: 10}, {Kind.UNSEEN, Kind.IGNORED}),
        ({0: 4, 1: 4, 255: 8}, {Kind.IGNORED}),
        ({255: 16}, {Kind.UNSCORED, Kind.IGNORED}),
    ],
)
@pytest.mark.parametrize("number", [8, 70])
def test_masks_of_0_and_255(tmp_path: Path, values: dict[int, int], kinds: set[Kind], number: int) -> None:
    """Where the classes are 0 and 1: told with the likely cause, also where only some masks are looked at."""
    said = warned(data(masks(tmp_path, values, [255], number)))
    assert set(said) == kinds
    for kind in kinds - {Kind.IGNORED}:
        assert "have a value that is ignored, 255: is that a class, as in masks of 0 and 255?" in said[kind]


def test_rare_classes_are_no_matter_of_a_glance(tmp_path: Path) -> None:
    """A class that some of many masks lack may be in the others."""
    export_index_masks(Shapes(70, size=32), tmp_path / "val", tmp_path / "val_masks", range(8), unlabelled=255)
    (tmp_path / "classes.csv").write_text("id,name\n" + "".join(f"{n},class {n}\n" for n in range(9)))
    classes = str(tmp_path / "classes.csv")
    make = partial(IndexMasks, tmp_path / "val", tmp_path / "val_masks", classes, [255], [".png"], ".png")
    assert warned(data(make)) == {}


def test_what_is_left_out_before_images_are_counted_is_told() -> None:
    """As a picture without its mask: no image was skipped, and yet one is not there."""
    problem = Problem(Kind.MISSING, "a.png", "", "has no mask in masks", "one of the same name")
    assert lines([("train", problem)], {"train": 0}) == ["train: left out for a flaw: missing file (1)"]
