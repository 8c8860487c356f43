"""What a gate is trained on."""

from pathlib import Path

import pytest
import torch

from src.data.gate_data import GateData
from src.exit_table.table import read_table
from tests.tables import EXITS, write_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table"), num_images=300, inputs=["mean32", "std32"])


def test_every_labelled_row_is_trained_on_or_held_out(table: Path) -> None:
    """Each once; rows without a quality are left out and counted."""
    data = GateData(table, batch_size=64)
    assert (data.num_unlabelled, len(data.train), len(data.holdout)) == (7, 264, 29)
    assert torch.equal(torch.cat([data.train, data.holdout]).sort().values, torch.arange(293))
    batches = list(data.train_dataloader())
    assert [len(batch["inputs"]) for batch in batches] == [64, 64, 64, 64, 8]
    assert batches[0]["inputs"].shape == (64, 16)
    seen = torch.cat([batch["quality"] for batch in [*batches, *data.val_dataloader()]])
    whole = read_table(table).quality
    assert torch.equal(seen.sum(1).sort().values, whole[~whole.isnan().any(1)].sum(1).sort().values)


def test_a_checkpoint_has_the_ids_trained_on(table: Path) -> None:
    """Those of the training rows, not of the holdout."""
    data = GateData(table, batch_size=64)
    labelled = read_table(table).image_ids[read_table(table).labelled]
    trained = data.for_checkpoint["table"]["train_ids"]
    assert trained.dtype == torch.int64
    assert torch.equal(trained, labelled[data.train])
    assert not torch.isin(labelled[data.holdout], trained).any()


def test_the_order_follows_from_seed_and_epoch(table: Path) -> None:
    """It is another in another epoch, the same in the same; what is held out depends on the seed."""
    loaders = [GateData(table, batch_size=64).train_dataloader() for _ in range(2)]
    first, again = (next(iter(loader))["inputs"] for loader in loaders)
    assert torch.equal(first, again)
    loaders[0].sampler.set_epoch(1)  # type: ignore[attr-defined]
    assert not torch.equal(first, next(iter(loaders[0]))["inputs"])
    assert torch.equal(GateData(table, 64, seed=1).holdout, GateData(table, 64, seed=1).holdout)
    assert not torch.equal(GateData(table, 64).holdout, GateData(table, 64, seed=1).holdout)


def test_some_exits_and_inputs_may_be_picked(table: Path) -> None:
    """Columns are those of the exits and inputs asked for, and moments those of the training rows."""
    data = GateData(table, batch_size=1000, exits=[3, 6], inputs=["std32"])
    (batch,) = data.train_dataloader()
    facts = data.for_task["table"]
    assert facts["exits"] == [3, 6]
    assert facts["inputs"] == {"std32": 8}
    assert batch["cost"][0].tolist() == [160, 220]
    torch.testing.assert_close(batch["inputs"].mean(0), torch.tensor(facts["mean"]))
    torch.testing.assert_close(batch["inputs"].std(0, correction=0), torch.tensor(facts["std"]))


def test_the_facts_name_the_images(tmp_path: Path) -> None:
    """By the settings of their split, where the table has any."""
    settings = {"data": {"train": {"_target_": "Coco", "size": 8}, "val": {"size": 9}}}
    info = read_table(write_table(tmp_path, num_images=20)).info._replace(settings=settings)
    data = GateData(str(tmp_path), batch_size=4)
    assert data.facts["images"] == {"split": "train", "segmentation": "panoptic"}
    data.info = info
    assert data.facts["images"] == {"split": "train", "segmentation": "panoptic", "_target_": "Coco", "size": 8}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"table": None}, "data.table=null"),
        ({"exits": [3, 7]}, rf"\[3, 7\].*\[{', '.join(map(str, EXITS))}\]"),
        ({"inputs": ["mean8"]}, "task.gate.inputs=.*mean8.*mean32.*std32"),
        ({"holdout": 0.001}, "data.holdout=.*of the 293 rows"),
        ({"holdout": 0.999}, "data.holdout=.*of the 293 rows"),
        ({"holdout": 1.0}, "below 1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(table: Path, wrong: dict, said: str) -> None:
    """In one line that says what was expected."""
    with pytest.raises(ValueError, match=said):
        GateData(**{"table": table, "batch_size": 64, **wrong})
