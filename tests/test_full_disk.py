"""A disk that fills up: whatever is being written, one line names the disk, and earlier files are whole."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.callbacks.exits import ExitList
from src.callbacks.last_checkpoint import AtomicCheckpointIO
from src.data.export import save_colors
from src.jobs.job import Job
from src.loggers.csv import RunLog
from src.prediction.writer import PredictionWriter
from src.records import run_folder
from src.records.csv_file import write_csv
from src.system.atomic import atomic_write, explain_full_disk
from src.weights.checkpoint import save
from tests.tables import write_table

BYTES = 1 << 20  # of the disk


def fill(disk: Path) -> None:
    """Leave no byte on a disk."""
    with open(disk / "ballast", "wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError:
            return


def log(folder: Path) -> None:
    logger = RunLog(str(folder), "", "")
    logger.log_metrics({f"score{number}": 1.0 for number in range(2000)}, 10)
    logger.save()


def list_exits(folder: Path) -> None:
    trainer: Any = SimpleNamespace(world_size=1, is_global_zero=True)
    exits = ExitList(str(folder / "exits.csv"))
    exits.rows = [(number, "name" * 100, 1, 1.0, None) for number in range(100)]
    exits.on_validation_end(trainer, None)


def answer(folder: Path) -> None:
    with PredictionWriter(str(folder), [], []) as answers:
        for _ in range(1000):
            answers.row(["name" * 1000])


WRITERS: dict[str, Callable[[Path], object]] = {
    "last.ckpt": lambda folder: AtomicCheckpointIO().save_checkpoint({"x": torch.rand(BYTES)}, folder / "last.ckpt"),
    "metrics.csv": log,
    "done.json": lambda folder: run_folder.finish(folder, "why" * BYTES, 5),
    "begun": lambda folder: Job("a", ["x" * BYTES], folder).begin(),
    "table.csv": lambda folder: write_csv([{"name": "x" * BYTES}], folder / "table.csv"),
    "exits.csv": list_exits,
    "model.safetensors": lambda folder: save({"x": torch.rand(BYTES)}, folder / "model.safetensors", {}),
    "panoptic.png": lambda folder: save_colors(
        np.random.default_rng(0).integers(0, 2**24, (900, 900)), folder / "panoptic.png"
    ),
    "part-00000.parquet": lambda folder: write_table(folder, num_images=9000),
    "exits.csv.part": answer,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_does_not_fit_names_the_disk(name: str, small_disk: Path) -> None:
    """What it would have replaced is there, whole, and nothing else is left of it."""
    (small_disk / name).write_text("before")
    fill(small_disk)
    with pytest.raises(OSError) as error:  # noqa: PT011  # of appended files `report_errors` adds the disk
        WRITERS[name](small_disk)
    assert f"the disk {small_disk} is full" in str(explain_full_disk(error.value, small_disk / name))
    assert {file.name for file in small_disk.iterdir()} <= {"ballast", name, "exits.csv"}
    assert name == "exits.csv.part" or (small_disk / name).read_text() == "before"


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_that_does_not_fit_names_the_disk(suffix: str, small_disk: Path) -> None:
    """In the same words, whatever the library says."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8))
    file = small_disk / f"a.{suffix}"
    fill(small_disk)
    with pytest.raises(OSError, match=f"the disk {small_disk} is full"), atomic_write(file) as part:
        noise.save(part)


def test_passing_tests_leave_no_files(pytestconfig: pytest.Config) -> None:
    """All tests together write 22 GB, more than the disks of many machines have left."""
    assert pytestconfig.getini("tmp_path_retention_policy") == "failed"
