"""The list of which exit every image took."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from src.callbacks.exits import ExitList
from src.tasks.evaluation import ImagePrediction

pytestmark = pytest.mark.slow

IMAGES = [(7, "c", 2, 1.25), (3, "a", 4, 2.5), (5, "b", 2, 1.0), (12, "d", 1, 0.5), (4, "e", 3, 2.0)]


def feed(exits: ExitList, images: list[tuple[int, str, int, float]], gate: bool = True) -> None:
    """One batch of images, as a task answers it."""
    ids, names, _, gflops = zip(*images, strict=True)
    answers = [ImagePrediction(exit=depth, gflops=cost, ms=10 * cost) for *_, depth, cost in images]
    outputs = {"answers": answers, **({"gflops": gflops} if gate else {})}
    batch = SimpleNamespace(image_ids=list(ids), names=list(names))
    exits.on_validation_batch_end(trainer_of(0), None, outputs, batch, 0)


def trainer_of(rank: int, world_size: int = 1) -> Any:
    return SimpleNamespace(world_size=world_size, is_global_zero=rank == 0, sanity_checking=False)


def written(file: Path) -> list[tuple[int, str, int, float]]:
    """The rows below the header, without the times, which are checked."""
    with file.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["image_id", "name", "exit", "gflops", "ms"]
    assert all(float(ms) == 10 * float(gflops) for *_, gflops, ms in rows)
    return [(int(id_), name, int(depth), float(gflops)) for id_, name, depth, gflops, _ in rows]


def test_a_row_for_every_image(tmp_path: Path) -> None:
    """By image id, whatever the order of the batches, in a folder that is made."""
    exits = ExitList(str(tmp_path / "new" / "exits.csv"))
    feed(exits, IMAGES[:3])
    feed(exits, IMAGES[3:])
    exits.on_validation_end(trainer_of(0), None)
    assert written(tmp_path / "new" / "exits.csv") == sorted(IMAGES)


def test_nothing_is_written_without_a_gate(tmp_path: Path) -> None:
    """Every image was scored at every exit: there is nothing to list."""
    exits = ExitList(str(tmp_path / "new" / "exits.csv"))
    feed(exits, IMAGES, gate=False)
    exits.on_validation_end(trainer_of(0), None)
    assert list(tmp_path.iterdir()) == []


def test_a_validation_lists_its_own_images(tmp_path: Path) -> None:
    """What an earlier one has seen is forgotten."""
    exits = ExitList(str(tmp_path / "exits.csv"))
    for images in (IMAGES[:3], IMAGES[3:]):
        feed(exits, images)
        exits.on_validation_end(trainer_of(0), None)
        assert written(tmp_path / "exits.csv") == sorted(images)


def work(rank: int, store: Path, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    exits = ExitList(str(folder / f"exits{rank}.csv"))
    feed(exits, IMAGES[rank::2])
    exits.on_validation_end(trainer_of(rank, 2), None)
    dist.destroy_process_group()


def test_two_processes_write_one_list(tmp_path: Path) -> None:
    """The first writes the images of both, unequal shares; the other nothing."""
    mp.spawn(work, (tmp_path / "store", tmp_path), nprocs=2)
    assert written(tmp_path / "exits0.csv") == sorted(IMAGES)
    assert not (tmp_path / "exits1.csv").exists()
