"""What W&B is told, read back from the file of an offline run."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb
from omegaconf import DictConfig
from wandb.proto.wandb_internal_pb2 import Record

from src.compose import compose
from tests.conftest import TINY_SHAPES
from tests.tables import EXITS, write_table
from tests.test_experiments import SMALL_MODEL

BLOCK, HEADER, WHOLE, LAST = 32768, 7, 1, 4


def records(folder: Path) -> list[Record]:
    """Everything in the one offline run of a folder: a log of LevelDB's form, after seven bytes of its own."""
    (file,) = folder.rglob("*.wandb")
    content, place, parts, found = file.read_bytes(), 7, b"", []
    while place < len(content):
        if BLOCK - place % BLOCK < HEADER:  # no room for a header: the rest of the block is empty
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + HEADER])
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (WHOLE, LAST):
            found.append(record := Record())
            record.ParseFromString(parts)
            parts = b""
    return found


def config_of(found: list[Record]) -> dict[str, str]:
    """Settings of a run by name, as JSON."""
    updates = [item for record in found for part in (record.run.config, record.config) for item in part.update]
    return {item.key or "/".join(item.nested_key): item.value_json for item in updates}


def run_of(configure: Callable[..., DictConfig], *overrides: str) -> None:
    task, data, trainer = compose(configure(*overrides, "logger=wandb"))
    trainer.fit(task, data)
    wandb.finish()


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_RUN_GROUP", "sweep_12345678")


def test_a_run_says_what_it_is(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """Project, sweep, type of job, tags, the composed configuration with predicted costs, and scores by exit."""
    overrides = [
        "+experiment=eco_parent_shapes",
        *TINY_SHAPES,
        *SMALL_MODEL,
        "image_size=[64,64]",
        "trainer.log_every_n_steps=1",
    ]
    run_of(configure, *overrides)
    found = records(tmp_path / "run")
    run = next(record.run for record in found if record.HasField("run"))
    assert (run.project, run.run_group, run.job_type) == ("ecoscale", "sweep_12345678", "parent")
    assert list(run.tags) == ["eco_parent_shapes", "panoptic"]
    config = config_of(found)
    assert json.loads(config["config"])["schedule"] == [0, 0, 4]
    assert float(config["gflops/exit1/total"]) < float(config["gflops/exit4/total"])
    logged = {item.key or item.nested_key[0] for record in found for item in record.history.item}
    assert {"val/pq/exit1", "val/pq/exit4", "train/loss"} <= logged
    assert any(record.HasField("exit") for record in found)  # it was finished


def test_a_gate_is_a_job_of_its_own_type(configure: Callable[..., DictConfig], tmp_path: Path) -> None:
    """In the same group as the others of its sweep."""
    table = write_table(tmp_path / "table", num_images=40)
    run_of(configure, "+experiment=eco_gate_coco", f"data.table={table}", "trainer.max_epochs=1", "beta=0.02")
    found = records(tmp_path / "run")
    run = next(record.run for record in found if record.HasField("run"))
    assert (run.job_type, run.run_group) == ("gate", "sweep_12345678")
    gate = json.loads(config_of(found)["gate"])
    assert (gate["beta"], gate["exits"], gate["parent"]) == (0.02, EXITS, "f" * 64)
