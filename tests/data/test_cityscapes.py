import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.cityscapes import CityscapesInstances, CityscapesPanoptic
from src.data.export import export_cityscapes
from src.data.formats.categories import read_categories
from src.data.index_masks import IndexMasks
from src.data.shapes import Shapes
from src.metrics.average_precision import MaskAP

SCENES = Shapes(4, size=64, seed=5, crowd=1.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    export_cityscapes(SCENES, tmp_path, "val")
    return tmp_path


def read(root: Path, split: str = "val", keep_empty: bool = True) -> CityscapesPanoptic:
    labels = root / "gtFine" / f"cityscapes_panoptic_{split}"
    return CityscapesPanoptic(root / "leftImg8bit" / split, labels.with_suffix(".json"), labels, keep_empty)


def edit(root: Path, change: Callable[[Any], None]) -> None:
    file = root / "gtFine" / "cityscapes_panoptic_val.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def test_scenes_come_back(root: Path):
    """Scenes written as Cityscapes are read back the same: images, segments, classes, crowds, areas."""
    scenes = read(root)
    assert scenes.categories == SCENES.categories
    assert len(scenes) == len(SCENES)
    for ours, theirs in zip(scenes, SCENES, strict=True):
        assert torch.equal(ours.image, theirs.image)
        assert ours.name == f"aachen_{theirs.image_id:06d}_000019_leftImg8bit.png"
        torch.testing.assert_close(ours.truth, theirs.truth, rtol=0, atol=0)


def street(root: Path, city: str, ids: np.ndarray, number: dict[int, int]) -> None:
    """One image whose labels are `ids` (H, W), as the official scripts would write it, added to the training split."""
    name = f"{city}_000001_000019"
    labels = root / "gtFine" / "cityscapes_panoptic_train"
    images = root / "leftImg8bit" / "train" / city
    labels.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", ids.shape[::-1], (len(city), 0, 0)).save(images / f"{name}_leftImg8bit.png")
    Image.fromarray(np.stack([ids % 256, ids // 256, ids * 0], -1).astype(np.uint8)).save(
        labels / f"{name}_gtFine_panoptic.png"
    )
    segments = []
    for id_ in np.unique(ids[ids > 0]).tolist():
        label = id_ if id_ < 1000 else id_ // 1000
        crowd = int(id_ == label and label >= 24)
        segments.append(
            {"id": id_, "category_id": number[label], "iscrowd": crowd, "area": int((ids == id_).sum()), "bbox": []}
        )
    file = labels.with_suffix(".json")
    document = json.loads(file.read_text()) if file.exists() else {"annotations": [], "images": []}
    document["images"].append(
        {"id": name, "file_name": f"{name}_gtFine_leftImg8bit.png", "height": ids.shape[0], "width": ids.shape[1]}
    )
    document["annotations"].append(
        {"image_id": name, "file_name": f"{name}_gtFine_panoptic.png", "segments_info": segments}
    )
    document["categories"] = [
        {"id": id_, "name": str(label), "isthing": int(label >= 24), "color": [label, 0, 0], "supercategory": "flat"}
        for label, id_ in number.items()
    ]
    file.write_text(json.dumps(document))


LABELS = [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]


@pytest.mark.parametrize("train_ids", [False, True])
def test_both_ways_to_number_classes_give_the_same_truth(tmp_path: Path, train_ids: bool):
    """With label ids as with train ids, segments have the same 19 classes, whatever their ids in the mask."""
    number = {label: place if train_ids else label for place, label in enumerate(LABELS)}
    ids = np.array([[0, 7, 7, 33002], [26, 26, 26000, 26001], [7, 7, 23, 26001]])
    street(tmp_path, "zurich", ids, number)
    street(tmp_path, "ulm", ids[:, :3], number)
    ulm, zurich = scenes = read(tmp_path, "train", keep_empty=False)
    assert [scenes.image_id(index) for index in (0, 1)] == [ulm.image_id, zurich.image_id] == [0, 1]
    assert (ulm.image[0].unique(), zurich.image[0].unique()) == (len("ulm"), len("zurich"))
    assert sum(category.isthing for category in scenes.categories) == 8
    assert len(scenes.categories) == 19
    assert [scenes.categories[label].name for label in zurich.truth.labels] == ["7", "23", "26", "26", "26", "33"]
    assert zurich.truth.crowd.tolist() == [False, False, True, False, False, False]
    assert zurich.truth.areas.tolist() == [4, 1, 2, 1, 2, 1]
    assert zurich.truth.segments.tolist() == [[[0, 1, 1, 6], [3, 3, 4, 5], [1, 1, 2, 5]]]
    assert zurich.truth.areas.tolist() == zurich.truth.masks().flatten(1).sum(1).tolist()


def test_images_left_out_leave_no_gap_in_the_ids(root: Path):
    """Image ids are running numbers of what is kept, none twice."""
    edit(root, lambda document: document["annotations"].pop(1))
    assert [sample.image_id for sample in read(root)] == [0, 1, 2, 3]
    assert [sample.image_id for sample in read(root, keep_empty=False)] == [0, 1, 2]


@pytest.mark.parametrize(
    "what", ["leftImg8bit/val", "gtFine/cityscapes_panoptic_val.json", "gtFine/cityscapes_panoptic_val"]
)
def test_what_is_missing_is_named(root: Path, what: str):
    """A missing folder or file is named, with where it comes from and the command that makes it."""
    (root / what).rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=f"not found: {root / what}. .*login.*=FOLDER csCreatePanopticImgs"):
        read(root)


@pytest.mark.parametrize(
    "file",
    [
        "leftImg8bit/val/aachen/aachen_000002_000019_leftImg8bit.png",
        "gtFine/cityscapes_panoptic_val/aachen_000002_000019_gtFine_panoptic.png",
    ],
)
def test_a_missing_picture_is_missed_at_once(root: Path, file: str):
    """An image or mask that is not there is told before the first sample is read."""
    (root / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{file}: no such image file"):
        read(root)


def test_a_wrong_class_is_told_with_the_name_of_its_image(root: Path):
    """What is wrong in an annotation is said with the image's name, not with its running number."""
    edit(root, lambda document: document["annotations"][2]["segments_info"][0].update(category_id=99))
    with pytest.raises(ValueError, match=r"image aachen_000002_000019, object .* has category_id 99"):
        read(root)


def real_ids(count: int, seed: int) -> Shapes:
    """Scenes whose classes are three kinds of Cityscapes' stuff and five of its things, with crowds of one kind."""
    scenes = Shapes(count, size=64, seed=seed, crowd=1.0, void=1.0)
    classes = {category.name: category for category in read_categories("cityscapes")}
    names = ("sky", "terrain", "road", "person", "car", "truck", "bus", "bicycle")
    scenes.categories = [classes[name] for name in names]
    return scenes


IGNORED = [0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30]


def released(root: Path, what: type[IndexMasks], mask_suffix: str) -> IndexMasks:
    folders = (root / "leftImg8bit" / "val", root / "gtFine" / "val")
    return what(*folders, "cityscapes", IGNORED, ["_leftImg8bit.png"], mask_suffix)


def test_objects_come_from_16_bit_masks(tmp_path: Path):
    """The things of instanceIds.png are those that were written: pixels, classes of 8, crowds, areas."""
    made = real_ids(4, seed=5)
    export_cityscapes(made, tmp_path, "val")
    scenes = released(tmp_path, CityscapesInstances, "_gtFine_instanceIds.png")
    assert Image.open(next((tmp_path / "gtFine" / "val" / "aachen").glob("*instanceIds.png"))).mode == "I;16"
    assert len(scenes.categories) == 8
    assert all(category.isthing for category in scenes.categories)
    for ours, theirs in zip(scenes, made, strict=True):
        things = theirs.truth.select(torch.tensor([made.categories[n].isthing for n in theirs.truth.labels]))
        found, wanted = ([row.tolist() for row in truth.masks().flatten(1)] for truth in (ours.truth, things))
        assert sorted(found) == sorted(wanted)
        order = [wanted.index(mask) for mask in found]
        names = [made.categories[label].name for label in things.labels[order]]
        assert [scenes.categories[label].name for label in ours.truth.labels] == names
        assert torch.equal(ours.truth.crowd, things.crowd[order])
        assert torch.equal(ours.truth.areas, things.areas[order])
    assert any(sample.truth.crowd.any() for sample in scenes)


def test_truth_against_itself_has_an_ap_of_100(tmp_path: Path):
    """Cityscapes' objects, scored as if they were found, have an average precision of 1."""
    export_cityscapes(real_ids(4, seed=5), tmp_path, "val")
    scenes = released(tmp_path, CityscapesInstances, "_gtFine_instanceIds.png")
    metric = MaskAP(range(8))
    for sample in scenes:
        truth, single = sample.truth, ~sample.truth.crowd  # a crowd need not be found
        found = (torch.ones(int(single.sum())), truth.labels[single], truth.masks()[single])
        metric.update(sample.image_id, *found, truth.masks(), truth.labels, truth.crowd, truth.areas)
    assert metric.compute()["ap"] == pytest.approx(1)


def test_classes_come_from_label_ids(tmp_path: Path):
    """The classes of labelIds.png are those of the objects that were written, 19 in all; other labels are nothing."""
    made = real_ids(4, seed=5)
    export_cityscapes(made, tmp_path, "val")
    scenes = released(tmp_path, IndexMasks, "_gtFine_labelIds.png")
    assert len(scenes.categories) == 19
    for ours, theirs in zip(scenes, made, strict=True):
        ids = torch.tensor([0, *(category.id for category in made.categories)])
        wanted = ids[torch.cat([torch.zeros(1, dtype=torch.int64), theirs.truth.labels + 1])[theirs.truth.segments[0]]]
        ids = torch.tensor([0, *(category.id for category in scenes.categories)])
        found = ids[torch.cat([torch.zeros(1, dtype=torch.int64), ours.truth.labels + 1])[ours.truth.segments[0]]]
        assert torch.equal(found, wanted)
    file = next((tmp_path / "gtFine" / "val" / "aachen").glob("*labelIds.png"))
    Image.new("L", (64, 64), 34).save(file)
    with pytest.raises(ValueError, match=rf"{file}: has the values \[34\]"):
        list(scenes)


def test_the_official_preparation_says_the_same(tmp_path: Path):
    """What Cityscapes' own scripts make of instanceIds.png has the objects that are read from it without them."""
    prepare = pytest.importorskip("cityscapesscripts.preparation.createPanopticImgs")
    export_cityscapes(real_ids(4, seed=5), tmp_path, "val")
    prepare.convert2panoptic(str(tmp_path / "gtFine"), setNames=["val"])
    scenes, prepared = released(tmp_path, CityscapesInstances, "_gtFine_instanceIds.png"), read(tmp_path)
    assert [(c.id, c.name, c.color) for c in prepared.categories] == [
        (c.id, c.name, c.color) for c in read_categories("cityscapes")
    ]
    for ours, theirs in zip(scenes, prepared, strict=True):
        things = theirs.truth.select(torch.tensor([prepared.categories[n].isthing for n in theirs.truth.labels]))
        assert torch.equal(ours.image, theirs.image)
        assert torch.equal(ours.truth.masks(), things.masks())
        assert torch.equal(ours.truth.labels, things.labels - 11)  # things come after 11 kinds of stuff
        assert torch.equal(ours.truth.crowd, things.crowd)
        assert torch.equal(ours.truth.areas, things.areas)
