"""Exports of labelling tools, as their `data=` reads them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from pycocotools import mask as run_lengths

from src.config.build import data_of
from src.data.export import export_coco
from src.data.problems import Kind
from src.data.shapes import Shapes

Configure = Callable[..., DictConfig]
SCENES = Shapes(5, size=64, seed=3, crowd=0)
SQUARE = [10, 10, 40, 10, 40, 30, 10, 30]


@pytest.fixture
def document(tmp_path: Path) -> Any:
    """COCO's file of some scenes, each object a square, with the pictures beside it in `made/val2017`."""
    export_coco(SCENES, tmp_path / "made", "val")
    document = json.loads((tmp_path / "made/annotations/instances_val2017.json").read_text())
    for entry in document["annotations"]:
        del entry["area"]
        entry["segmentation"] = [SQUARE]
    return document


def place(document: Any, pictures: Path, file: Path, made: Path) -> None:
    """Put pictures and annotations where a tool has them."""
    pictures.mkdir(parents=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    for picture in (made / "val2017").iterdir():
        (pictures / picture.name).write_bytes(picture.read_bytes())
    file.write_text(json.dumps(document))


def roboflow(document: Any, root: Path, made: Path) -> None:
    """With its category 0, which no object has, and ids from 0."""
    document["categories"].insert(0, {"id": 0, "name": document["categories"][0]["name"], "supercategory": "none"})
    for number, entry in enumerate(document["annotations"]):
        entry["id"] = number
    for split in ("train", "valid"):
        place(document, root / split, root / split / "_annotations.coco.json", made)


def cvat(document: Any, root: Path, made: Path) -> None:
    for split in ("train", "val"):
        place(document, root / split / "images", root / split / "annotations/instances_default.json", made)


def labelme(document: Any, root: Path, made: Path) -> None:
    """With its folder in the names, and isthing nowhere."""
    for image in document["images"]:
        image["file_name"] = f"JPEGImages/{image['file_name']}"
    for category in document["categories"]:
        del category["isthing"]
    for split in ("train", "val"):
        place(document, root / split / "JPEGImages", root / split / "annotations.json", made)


@pytest.mark.parametrize("export", [roboflow, cvat, labelme])
def test_an_export_is_read_by_its_root_alone(
    export: Callable[[Any, Path, Path], None], document: Any, configure: Configure, tmp_path: Path
) -> None:
    """Both splits, every object, and nothing is said but of a class that no object has."""
    root = tmp_path / "export"
    export(document, root, tmp_path / "made")
    data = data_of(configure(f"data={export.__name__}_instances", f"data.root={root}", "data.num_workers=0"))
    square = torch.from_numpy(run_lengths.decode(run_lengths.frPyObjects([SQUARE], 64, 64))[..., 0]).bool()
    for scenes in (data.val_scenes, data.train_scenes):
        objects = [len(sample.truth.labels) for sample in scenes]
        assert sum(objects) == len(document["annotations"])
        assert all(torch.equal(mask, square) for sample in scenes for mask in sample.truth.masks())
    assert {problem.kind for _, problem in data.problems} <= {Kind.UNSEEN, Kind.BARE}
