import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.cityscapes import CityscapesPanoptic
from src.data.export import export_cityscapes
from src.data.shapes import Shapes

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
        assert all(torch.equal(a, b) for a, b in zip(ours.truth, theirs.truth, strict=True))


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
    with pytest.raises(FileNotFoundError, match=f"{file}: no such picture"):
        read(root)


def test_a_wrong_class_is_told_with_the_name_of_its_image(root: Path):
    """What is wrong in an annotation is said with the image's name, not with its running number."""
    edit(root, lambda document: document["annotations"][2]["segments_info"][0].update(category_id=99))
    with pytest.raises(ValueError, match=r"image aachen_000002_000019, object .* has category_id 99"):
        read(root)
