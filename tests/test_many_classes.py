"""Data sets of more classes than a byte tells apart, from the files to the scores."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.export import export_coco, export_index_masks
from src.data.shapes import Shapes
from src.data.targets import Sample
from src.evaluate import evaluate
from src.exit_table.table import read_table
from src.label import label
from src.predict import gathered, predict
from src.train import train
from src.validate_data import validate_data
from tests.helpers import SIZES, SMALL_MODEL, TINY

pytestmark = pytest.mark.slow

VOID = 65535
NUM_CLASSES = {"semantic": 300, "panoptic": 300, "instances": 1203}
SCORE = {"semantic": "miou", "panoptic": "pq", "instances": "ap"}


class Many(Shapes):
    """Made scenes whose objects are spread over so many classes, the last ones among them."""

    def __init__(self, num_scenes: int, seed: int, num_classes: int) -> None:
        super().__init__(num_scenes, size=64, seed=seed, void=1.0)
        few, self.num_classes = self.categories, num_classes
        self.categories = [
            few[place % len(few)]._replace(id=1000 + place, name=f"class {place}") for place in range(num_classes)
        ]

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        labels = sample.truth.labels + 8 * ((self.num_classes - 8) // 8 - index)  # things stay things
        return sample._replace(truth=sample.truth._replace(labels=labels))


def export(kind: str, root: Path) -> Path:
    """Scenes to train on and to validate with, as data of one's own."""
    for split, seed in (("train", 0), ("val", 1)):
        scenes = Many(4, seed, NUM_CLASSES[kind])
        if kind == "semantic":
            values = [category.id for category in scenes.categories]
            export_index_masks(scenes, root / split, root / f"{split}_masks", values, VOID)
            lines = ["id,name", *(f"{category.id},{category.name}" for category in scenes.categories)]
            (root / "classes.csv").write_text("\n".join(lines))
            continue
        export_coco(scenes, root, split)
        (root / f"{split}2017").rename(root / split)
        (root / f"panoptic_{split}2017").rename(root / f"{split}_masks")
        document = json.loads((root / f"annotations/{kind}_{split}2017.json").read_text())
        document["categories"] = [category._asdict() for category in scenes.categories]
        (root / f"{split}.json").write_text(json.dumps(document))
    return root


@pytest.mark.parametrize("kind", NUM_CLASSES)
def test_every_command_takes_more_classes_than_a_byte(
    kind: str, command: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data are looked over, learnt, scored, labelled and predicted, the last classes as well as the first."""
    root = export(kind, tmp_path / "data")
    data = [f"data=custom_{kind}", f"data.root={root}", "data.num_workers=0"]
    data += [f"data.val.ignore=[{VOID}]"] if kind == "semantic" else []
    command(validate_data, "validate_data", *data, f"hydra.run.dir={tmp_path}/look", "samples=2")
    assert "fit for training" in capsys.readouterr().out
    counts = list(csv.DictReader((tmp_path / "look" / "counts.csv").open()))
    assert len(counts) == 2 * NUM_CLASSES[kind]
    assert any(int(row["images"]) for row in counts if int(row["class"].split()[-1]) > 255)

    settings = ["+experiment=proscale_camvid", *data, *TINY, *SIZES, *SMALL_MODEL, "image_size=[64,64]", "exits=[2,3]"]
    command(train, "config", *settings, f"hydra.run.dir={tmp_path}/run")
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert 0 <= scores["exits"]["3"][SCORE[kind]] <= 100
    file = f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt"
    command(evaluate, "evaluate", file, f"hydra.run.dir={tmp_path}/again")
    again = json.loads((tmp_path / "again" / "scores.json").read_text())
    assert again["exits"]["3"][SCORE[kind]] == scores["exits"]["3"][SCORE[kind]]
    command(label, "label", file, f"table={tmp_path}/table")
    assert read_table(tmp_path / "table").labelled.all()
    command(predict, "predict", *gathered([str(root / "val"), file, f"out={tmp_path}/out"]))
    if kind == "semantic":
        values = np.asarray(Image.open(next((tmp_path / "out" / "semantic").iterdir())))
        assert values.dtype == np.uint16
        assert 1000 <= values.min() <= values.max() < 1000 + NUM_CLASSES[kind]


def test_masks_of_many_classes_are_written_in_16_bits(tmp_path: Path) -> None:
    """And come back as they were; of few classes they stay bytes."""
    scenes = Many(1, 0, 300)
    for values, bits in ((range(1000, 1300), np.uint16), ([n // 2 for n in range(300)], np.uint8)):
        export_index_masks(scenes, tmp_path / "images", tmp_path / "masks", values, unlabelled=0)
        (file,) = (tmp_path / "masks").iterdir()
        written, truth = np.asarray(Image.open(file)), scenes[0].truth
        assert written.dtype == bits
        expected = torch.tensor([0, *(values[place] for place in truth.labels.tolist())])[truth.segments[0]]
        assert np.array_equal(written, expected)
