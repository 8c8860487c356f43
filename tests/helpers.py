"""What several tests share: settings of tiny runs on the CPU, commands in processes of their own, exported scenes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from src.data.export import export_coco, export_index_masks
from src.data.shapes import Shapes

ROOT = Path(__file__).parents[1]

TINY = [
    "model.backbone.pretrained=false",
    "batch_size=2",
    "validate_every=1",
    "trainer.max_steps=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "data.num_workers=0",
    "task.criterion.num_points=64",
]
TINY_SHAPES = [*TINY, "data.train.num_scenes=8", "data.val.num_scenes=3", "data.train.size=64"]
SMALL_MODEL = [
    "dim=32",
    "num_queries=5",
    "model.decoder.num_layers=2",
    "model/backbone=timm",
    "model.backbone.name=resnet10t",
]
SIZES = ["data.augment.size=64", "data.resize.short=64", "data.resize.long=64"]


def launch(entry: str, *arguments: str) -> None:
    """Run a command in a process of its own, as a user does; it must succeed."""
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on it in their last digit
    command = [sys.executable, "-m", entry, *arguments]
    process = subprocess.run(
        command, cwd=ROOT, env=os.environ | threads, capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr


def error_line(capsys: pytest.CaptureFixture[str], call: Callable[[], object]) -> str:
    """Return the one error line with which a call exits, with status 2 and without a stack trace."""
    with pytest.raises(SystemExit) as stop:
        call()
    errors = capsys.readouterr().err
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert stop.value.code == 2
    assert len(lines) == 1
    assert "Traceback" not in errors
    return lines[0]


def export_custom(scenes: Shapes, root: Path, split: str) -> None:
    """Scenes as data of one's own in each of the three layouts."""
    for kind in ("panoptic", "instances"):
        folder = root / kind
        export_coco(scenes, folder, split)
        (folder / f"{split}2017").rename(folder / split)
        (folder / f"panoptic_{split}2017").rename(folder / f"{split}_masks")
        (folder / "annotations" / f"{kind}_{split}2017.json").rename(folder / f"{split}.json")
    export_index_masks(scenes, root / "semantic" / split, root / "semantic" / f"{split}_masks", range(8), 255)
    lines = [f"{value},{category.name}" for value, category in enumerate(scenes.categories)]
    (root / "semantic" / "classes.csv").write_text("\n".join(["id,name", *lines]))
