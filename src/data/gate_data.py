"""The data of a gate: the rows of an exit table, some to train on and the others to choose and score by.

Letters: N rows with a quality, B rows of a batch, F numbers that describe an image, E exits.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from src.exit_table.table import About, ExitTable, read

EVAL_BATCH = 65536  # rows; a matrix product takes them at once


class GateData(LightningDataModule):
    """Batches {"inputs": (B, F), "quality": (B, E), "cost": (B, E)} of an exit table's rows that have a quality.

    Args:
        table: the folder that `src.label` wrote.
        holdout: share of the rows that is not trained on.
        seed: of which rows these are, and of the order of the others.
        exits: depths, some of those of the table; null: all.
        inputs: gate inputs to put side by side, some of those of the table; null: all.
    """

    def __init__(
        self,
        table: str | None,
        batch_size: int,
        holdout: float = 0.1,
        seed: int = 0,
        exits: Sequence[int] | None = None,
        inputs: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if table is None:
            raise ValueError("data.table=null: expected the folder of an exit table; python -m src.label writes one")
        self.table, self.batch_size, self.seed = str(table), batch_size, seed
        whole = read(table)
        self.about = whole.about
        columns = pick_exits(whole.about, exits, self.table)
        self.exits = [whole.about.exits[column] for column in columns]
        self.inputs = pick_inputs(whole.about, inputs, self.table)
        self.num_unlabelled = int((~whole.labelled).sum())
        self.rows = Rows(whole, whole.labelled.nonzero()[:, 0], columns, list(self.inputs))
        self.train, self.holdout = split(len(self.rows), holdout, seed, self.table)

    @property
    def for_task(self) -> dict[str, Any]:
        """What the task needs to know."""
        mean, std = moments(self.rows.tensors["inputs"], self.train)
        facts = {
            **self.facts,
            "exits": self.exits,
            "inputs": self.inputs,
            "parent": self.about.parent,
            "source": self.about.source,
            "segmentation": self.about.segmentation,
            "mean": mean.tolist(),
            "std": std.tolist(),
        }
        return {"table": facts}

    @property
    def for_checkpoint(self) -> dict[str, Any]:
        """What a checkpoint says of the data."""
        return {"table": {"folder": self.table, **self.facts}}

    @property
    def facts(self) -> dict[str, Any]:
        """How many rows there are of each kind, and which images they are of, as far as the table says."""
        whole = self.about.settings.get("data") or {}
        return {
            "num_train": len(self.train),
            "num_holdout": len(self.holdout),
            "num_unlabelled": self.num_unlabelled,
            "images": {
                "split": self.about.split,
                "segmentation": self.about.segmentation,
                **(whole.get(self.about.split) or {}),
            },
        }

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        # Lightning warns of every loader without a state of its own; this order's state is the epoch.
        warnings.filterwarnings("ignore", message=".*dataloader is not resumable")
        return loader(self.rows, Shuffled(self.train, self.batch_size, self.seed))

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return loader(self.rows, InOrder(self.holdout, EVAL_BATCH))


class Rows(Dataset[dict[str, Tensor]]):
    """Rows of a table as tensors, many at a time."""

    def __init__(self, table: ExitTable, places: Tensor, columns: Sequence[int], inputs: Sequence[str]) -> None:
        self.tensors = {
            "inputs": torch.cat([table.inputs[name][places] for name in inputs], 1),
            "quality": table.quality[places][:, columns],
            "cost": table.cost[places][:, columns],
        }

    def __len__(self) -> int:
        return len(self.tensors["quality"])

    def __getitem__(self, places: Tensor) -> dict[str, Tensor]:
        return {name: values.index_select(0, places) for name, values in self.tensors.items()}


class InOrder(Sampler[Tensor]):
    """Which rows each batch has, in order."""

    def __init__(self, places: Tensor, batch_size: int) -> None:
        self.places, self.batch_size = places, batch_size

    def __len__(self) -> int:
        return -(-len(self.places) // self.batch_size)

    def order(self) -> Tensor:
        return self.places

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.order().split(self.batch_size))


class Shuffled(InOrder):
    """Which rows each batch has, in an order that follows from seed and epoch alone."""

    def __init__(self, places: Tensor, batch_size: int, seed: int) -> None:
        super().__init__(places, batch_size)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning says which it is."""
        self.epoch = epoch

    def order(self) -> Tensor:
        return self.places[permutation(len(self.places), (self.seed, self.epoch))]


def loader(rows: Rows, sampler: Sampler[Tensor]) -> DataLoader[dict[str, Tensor]]:
    """Batches sliced at once from tensors in memory: no row is touched alone."""
    return DataLoader(dataset=rows, sampler=sampler, batch_size=None, num_workers=0)


def permutation(count: int, seed: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).permutation(count))


def split(count: int, holdout: float, seed: int, table: str) -> tuple[Tensor, Tensor]:
    """Which of so many rows to train on, and which to hold out, both in the order of the table."""
    if not 0 < holdout < 1:
        raise ValueError(f"data.holdout={holdout:g}: expected a number above 0 and below 1")
    held = round(holdout * count)
    if not 1 <= held < count:
        raise ValueError(
            f"data.holdout={holdout:g}: of the {count} rows of {table} that have a quality {held} would be held out, "
            "expected at least one and not all"
        )
    order = permutation(count, (seed,))
    return order[held:].sort().values, order[:held].sort().values


def moments(inputs: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column of some rows of (N, F), in float64, a few rows at a time."""
    parts = places.split(8192)
    mean = torch.stack([inputs[part].double().sum(0) for part in parts]).sum(0) / len(places)
    squares = torch.stack([((inputs[part].double() - mean) ** 2).sum(0) for part in parts]).sum(0)
    return mean, (squares / len(places)).sqrt()


def pick_exits(about: About, exits: Sequence[int] | None, table: str) -> list[int]:
    """Columns of the exits asked for, shallowest first."""
    wanted = about.exits if exits is None else exits
    if not wanted or not set(wanted) <= set(about.exits):
        raise ValueError(f"data.exits={list(wanted)}: {table} has the exits {about.exits}, expected some of them")
    return [column for column, depth in enumerate(about.exits) if depth in wanted]


def pick_inputs(about: About, inputs: Sequence[str] | None, table: str) -> dict[str, int]:
    """Channels of the gate inputs asked for, in their order."""
    wanted = list(about.inputs) if inputs is None else list(inputs)
    if not wanted or not set(wanted) <= set(about.inputs):
        there = ", ".join(about.inputs)
        raise ValueError(f"task.gate.inputs={wanted}: {table} has the inputs {there}, expected some of them")
    return {name: about.inputs[name] for name in wanted}
