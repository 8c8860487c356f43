"""Validation images in which nothing is annotated: no score is made of them."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.gate_data import GateData
from src.data.shapes import Shapes
from src.evaluate import evaluate
from src.exit_table.table import read_table
from src.label import label
from src.reporting.runs import find
from src.train import train
from tests.helpers import SIZES, SMALL_MODEL, TINY, error_line, export_custom

pytestmark = pytest.mark.slow

SCORES = {"semantic": ["miou"], "panoptic": ["pq", "ap"], "instances": ["ap"]}


def empty(root: Path, kind: str) -> None:
    """Have nothing annotated in the validation images but void, crowd regions, or nothing at all."""
    if kind == "semantic":
        for file in (root / "val_masks").iterdir():
            Image.fromarray(np.full_like(np.asarray(Image.open(file)), 255)).save(file)
        return
    document = json.loads((root / "val.json").read_text())
    if kind == "instances":
        document["annotations"] = []
    else:
        for segment in (one for image in document["annotations"] for one in image["segments_info"]):
            segment["iscrowd"] = 1
    (root / "val.json").write_text(json.dumps(document))


def settings_of(kind: str, root: Path) -> list[str]:
    """Of a small model that predicts what nothing excuses."""
    data = [f"data=custom_{kind}", f"data.root={root}", *TINY, *SIZES, *SMALL_MODEL]
    others = ["image_size=[64,64]", "exits=[2,3]", "task.postprocess.object_threshold=0.0"]
    return ["+experiment=proscale_camvid", *data, *others]


@pytest.mark.parametrize("kind", SCORES)
def test_no_score_is_made_of_nothing(
    kind: str, command: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in training, whose best checkpoint is the newest one then, nor in evaluation, labels and gates."""
    for split, seed in (("train", 0), ("val", 1)):
        export_custom(Shapes(3, size=64, seed=seed), tmp_path, split)
    empty(root := tmp_path / kind, kind)
    command(train, "config", *settings_of(kind, root), "trainer.max_steps=2", f"hydra.run.dir={tmp_path}/run")
    told = capsys.readouterr()
    assert told.out.count("nothing") >= 2 * 2 * len(SCORES[kind])  # validations and exits
    assert told.err.count("val/quality has nothing to score") == 1
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == 2

    file = f"ckpt_path={tmp_path}/run/checkpoints/best.ckpt"
    command(evaluate, "evaluate", file, f"hydra.run.dir={tmp_path}/again")
    printed = capsys.readouterr().out
    assert printed.count("nothing") == 2 * len(SCORES[kind])
    assert "nan" not in printed
    for folder in ("run", "again"):
        exits = json.loads((tmp_path / folder / "scores.json").read_text())["exits"]
        assert not any(
            name in row or math.isnan(row["total_gflops"]) for row in exits.values() for name in SCORES[kind]
        )
    if kind != "panoptic":  # of which crowd regions have a class, and so an IoU
        assert "nothing to score" in find([tmp_path / "again"])[1][0].why

    labels = ["label", file, "split=val", f"table={tmp_path}/table"]
    assert "nothing to score in any of its 3 images" in error_line(capsys, lambda: command(label, *labels))
    with pytest.raises(ValueError, match="nothing to score in any of its 3 images"):
        GateData(str(tmp_path / "table"), batch_size=2)


def test_images_without_a_quality_are_counted(
    command: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command that labels, where some have one."""
    for split, seed in (("train", 0), ("val", 1)):
        export_custom(Shapes(3, size=64, seed=seed), tmp_path, split)
    root = tmp_path / "semantic"
    file = sorted((root / "val_masks").iterdir())[1]
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(file)
    command(train, "config", *settings_of("semantic", root), "trainer.max_steps=1", f"hydra.run.dir={tmp_path}/run")
    command(label, "label", f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", "split=val", f"table={tmp_path}/table")
    assert "3 images of val, nothing to score in 1 of them" in capsys.readouterr().out
    assert read_table(tmp_path / "table").labelled.tolist() == [True, False, True]
