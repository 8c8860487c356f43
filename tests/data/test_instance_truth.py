"""AP against a file of its own: the same whatever tool wrote the file, and refused where it is of other data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.data.coco import CocoPanoptic
from src.data.export import export_coco
from src.data.instance_truth import InstanceTruth
from src.data.problems import DataError
from src.data.shapes import Shapes
from src.metrics.average_precision import MaskAP

SCENES = Shapes(6, size=64, seed=5, crowd=0.3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    export_coco(SCENES, tmp_path, "val")
    return tmp_path


def scenes(root: Path) -> CocoPanoptic:
    return CocoPanoptic(root / "val2017", root / "annotations/panoptic_val2017.json", root / "panoptic_val2017")


def truth(root: Path, change: Callable[[Any], Any] = lambda document: None) -> InstanceTruth:
    """The truth of a file that was changed."""
    document = json.loads((root / "annotations/instances_val2017.json").read_text())
    change(document)
    file = root / "changed.json"
    file.write_text(json.dumps(document))
    return InstanceTruth(str(file), SCENES.categories, scenes(root))


def scores(made: InstanceTruth | None) -> dict[str, float]:
    """AP of detections that are the things of each scene, moved a little."""
    things = [index for index, category in enumerate(SCENES.categories) if category.isthing]
    metric = MaskAP(things)
    metric.truth = made
    for place, sample in enumerate(SCENES):
        masks, labels = sample.truth.masks(), sample.truth.labels
        found = masks.roll(place % 3, -1)
        ranks = torch.linspace(0.9, 0.1, len(labels))
        metric.update(sample.image_id, ranks, labels, found, masks, labels, sample.truth.crowd, sample.truth.areas)
    return {name: float(value) for name, value in metric.compute().items()}


def ids_from_0(document: Any) -> None:
    for place, entry in enumerate(document["annotations"]):
        entry["id"] = place


def other_numbers(document: Any) -> None:
    for entry in document["annotations"]:
        entry["category_id"] = 100 - entry["category_id"]
    for category in document["categories"]:
        category["id"] = 100 - category["id"]
    document["categories"].insert(0, {"id": 0, "name": document["categories"][0]["name"]})


def other_case(document: Any) -> None:
    for category in document["categories"]:
        category["name"] = f" {category['name'].upper()}"


def other_image_ids(document: Any) -> None:
    for image in document["images"]:
        image["id"] = (image["id"] + 1) % 6
    for entry in document["annotations"]:
        entry["image_id"] = (entry["image_id"] + 1) % 6


def image_ids_of_another_range(document: Any) -> None:
    for image in document["images"]:
        image["id"] += 1000
    for entry in document["annotations"]:
        entry["image_id"] += 1000


def text_ids(document: Any) -> None:
    for image in document["images"]:
        image["id"] = f"image {image['id']}"
    for entry in document["annotations"]:
        entry["image_id"] = f"image {entry['image_id']}"


def areas_of_0(document: Any) -> None:
    for entry in document["annotations"]:
        entry["area"] = 0


def bare(document: Any) -> None:
    for entry in document["annotations"]:
        for key in ("area", "bbox") + ("iscrowd",) * (not entry["iscrowd"]):
            del entry[key]
    for image in document["images"]:
        del image["height"], image["width"]


def more_images(document: Any) -> None:
    document["images"].append({"id": 99, "file_name": "another.png", "height": 9, "width": 9})


@pytest.mark.parametrize(
    "change",
    [
        ids_from_0,
        other_numbers,
        other_case,
        other_image_ids,
        image_ids_of_another_range,
        text_ids,
        areas_of_0,
        bare,
        more_images,
    ],
)
def test_ap_does_not_depend_on_how_a_file_is_written(root: Path, change: Callable[[Any], None]) -> None:
    """Nor differs from that of the data's own segments, which these are."""
    plain = scores(None)
    assert 0.1 < plain["ap"] < 0.9
    assert scores(truth(root)) == pytest.approx(plain, nan_ok=True)
    assert scores(truth(root, change)) == pytest.approx(plain, nan_ok=True)


def renamed(document: Any) -> None:
    document["categories"][1]["name"] = "horse"


def fewer_images(document: Any) -> None:
    document["images"] = document["images"][:4]
    document["annotations"] = [one for one in document["annotations"] if one["image_id"] < 4]


def renamed_pictures(document: Any) -> None:
    for image in document["images"]:
        image["file_name"] = f"other_{image['file_name']}"


def other_sizes(document: Any) -> None:
    document["images"][2]["height"] = 65


def broken_mask(document: Any) -> None:
    document["annotations"][3] |= {"id": 777, "segmentation": {"size": [64, 64], "counts": "52"}}


def mask_without_end(document: Any) -> None:
    document["annotations"][3] |= {"id": 777, "segmentation": {"size": [64, 64], "counts": [0, 5000]}}


def no_segmentation(document: Any) -> None:
    for entry in document["annotations"]:
        del entry["segmentation"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (renamed, r"has other classes; of the data's things it lacks \w+ \(0 there\), and has objects of horse"),
        (fewer_images, r"lacks 2 of the 6 images that are scored: 4 \(000000000004.png\), 5 "),
        (renamed_pictures, r"lacks 6 of the 6 images that are scored: 0 \(000000000000.png\)"),
        (other_sizes, r"image 000000000002.png is 65 x 64 .* there, expected 64 x 64"),
        (broken_mask, "changed.json: annotation 777 has run lengths that end early"),
        (mask_without_end, "changed.json: annotation 777 cannot be drawn"),
        (no_segmentation, "changed.json: has boxes only.*boxes are not enough for masks"),
        (lambda document: document.pop("images"), "changed.json: has no 'images'"),
    ],
)
def test_a_file_of_other_data_is_refused(root: Path, change: Callable[[Any], Any], said: str) -> None:
    """Before anything is scored, with the file's name and what does not match."""
    with pytest.raises(DataError, match=said):
        truth(root, change)


def test_files_of_other_kinds_are_named(root: Path) -> None:
    """One that is not there, one of the panoptic layout, one that is cut short."""
    with pytest.raises(FileNotFoundError, match=r"task\.instance_truth=nothing.json: no such file"):
        InstanceTruth("nothing.json", SCENES.categories, scenes(root))
    panoptic = str(root / "annotations/panoptic_val2017.json")
    with pytest.raises(DataError, match=r"panoptic_val2017\.json: is of COCO's panoptic layout"):
        InstanceTruth(panoptic, SCENES.categories, scenes(root))
    plain = str(root / "annotations/instances_val2017.json")
    with pytest.raises(ValueError, match="Shapes does not say which images it has"):
        InstanceTruth(plain, SCENES.categories, SCENES)
    (root / "short.json").write_text(Path(panoptic).read_text()[:500])
    with pytest.raises(DataError, match=r"short\.json: not readable as JSON"):
        InstanceTruth(str(root / "short.json"), SCENES.categories, scenes(root))


def test_two_pictures_of_a_name_are_not_one(root: Path) -> None:
    """Where a file numbers images otherwise and has that name once, it does not say which it means."""
    (root / "val2017" / "deeper").mkdir()
    (root / "val2017" / "000000000005.png").rename(root / "val2017" / "deeper" / "000000000004.png")
    file = root / "annotations/panoptic_val2017.json"
    document = json.loads(file.read_text())
    document["images"][5]["file_name"] = "deeper/000000000004.png"
    file.write_text(json.dumps(document))

    def change(document: Any) -> None:
        image_ids_of_another_range(document)
        del document["images"][5]
        document["annotations"] = [one for one in document["annotations"] if one["image_id"] < 1005]

    with pytest.raises(DataError, match=r"lacks 2 of the 6 images that are scored: 4 .*, 5 "):
        truth(root, change)
