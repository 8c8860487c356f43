"""What several tests share: settings of tiny runs on the CPU, commands in processes of their own, exported scenes."""

import atexit
import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

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
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["src.config.build", "src.data.module"]
)  # not timm: it imports wandb, which makes a folder
SIZES = ["data.augment.size=64", "data.resize.short=64", "data.resize.long=64"]


def compose_run(folder: Path, *overrides: str) -> DictConfig:
    """Compose the real configuration with overrides, for a run in this folder."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", [f"paths.run={folder}", *overrides], return_hydra_config=False)
    HydraConfig.instance().cfg = None
    return cfg


def launch(entry: str, *arguments: str) -> None:
    """Run a command in a process of its own, as a user does; it must succeed.

    The process is forked from one that has imported torch and Lightning already, which takes seconds.
    """
    with tempfile.NamedTemporaryFile() as log:
        process = PROCESSES.Process(
            target=become, args=(entry, arguments, dict(os.environ), torch.get_num_threads(), log.name)
        )
        process.start()
        process.join(timeout=300)
        process.kill()
        assert process.exitcode == 0, Path(log.name).read_text()


def become(entry: str, arguments: Sequence[str], environment: dict[str, str], threads: int, log: str) -> None:
    """Run a command as the main module of this process, from the project's folder; what it prints goes to `log`."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    torch.set_num_threads(threads)  # sums depend on it in their last digit
    sys.argv = [entry, *arguments]
    try:
        runpy.run_module(entry, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


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
