"""The data of a gate: the rows of an exit table, split into training rows and a holdout.

Letters: N rows with a quality, B rows of a batch, F numbers of all gate inputs together, E exits.
"""

import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from src.exit_table.table import ExitTable, read_table

EVAL_BATCH_SIZE = 65536  # rows; a gate is small enough to score them at once


class GateData(LightningDataModule):
    """Batches {"inputs": (B, F), "quality": (B, E), "cost": (B, E)} of an exit table's rows that have a quality.

    Args:
        table: folder of the exit table, written by `src.label`.
        holdout: share of the rows that is held out for validation.
        seed: selects the holdout and shuffles the training rows.
        exits: depths, a subset of the table's; None: all.
        inputs: gate inputs to concatenate, a subset of the table's; None: all.
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
        whole = read_table(table)
        self.info = whole.info
        wanted = chosen("data.exits", exits, self.info.exits, self.table)
        self.exits = [depth for depth in self.info.exits if depth in wanted]
        columns = [self.info.exits.index(depth) for depth in self.exits]
        wanted_inputs = chosen("task.gate.inputs", inputs, self.info.inputs, self.table)
        self.inputs = {name: self.info.inputs[name] for name in wanted_inputs}  # numbers in each
        self.num_unlabelled = int((~whole.labelled).sum())
        self.image_ids = whole.image_ids[whole.labelled]
        self.rows = GateDataset(whole.rows(whole.labelled), columns, list(self.inputs))
        self.train, self.holdout = split(len(self.rows), holdout, seed, self.table)

    @property
    def for_task(self) -> dict[str, Any]:
        """Keyword arguments of the task."""
        mean, std = moments(self.rows.tensors["inputs"], self.train)
        facts = {
            **self.facts,
            "exits": self.exits,
            "first_exit": self.info.exits[0],
            "inputs": self.inputs,
            "parent": self.info.parent,
            "source": self.info.source,
            "segmentation": self.info.segmentation,
            "mean": mean.tolist(),
            "std": std.tolist(),
        }
        return {"table": facts}

    @property
    def for_checkpoint(self) -> dict[str, Any]:
        """Hyperparameters that describe the data in a checkpoint; the ids keep a gate from being judged on them."""
        return {"table": {"folder": self.table, **self.facts, "train_ids": self.image_ids[self.train]}}

    @property
    def facts(self) -> dict[str, Any]:
        """Numbers of rows, and the settings of the images that the table was made from."""
        data_settings = self.info.settings.get("data") or {}
        return {
            "num_train": len(self.train),
            "num_holdout": len(self.holdout),
            "num_unlabelled": self.num_unlabelled,
            "quality": self.info.quality,
            "images": {
                "split": self.info.split,
                "segmentation": self.info.segmentation,
                **(data_settings.get(self.info.split) or {}),
            },
        }

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        # Lightning warns about loaders without a state; here the epoch determines the order.
        warnings.filterwarnings("ignore", message=".*dataloader is not resumable")
        return loader(self.rows, Shuffled(self.train, self.batch_size, self.seed))

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        return loader(self.rows, self.holdout.split(EVAL_BATCH_SIZE))


class GateDataset(Dataset[dict[str, Tensor]]):
    """Rows of a table, indexed by a batch of indices (B,)."""

    def __init__(self, table: ExitTable, columns: Sequence[int], inputs: Sequence[str]) -> None:
        self.tensors = {
            "inputs": torch.cat([table.inputs[name] for name in inputs], 1),  # (N, F)
            "quality": table.quality[:, columns],  # (N, E)
            "cost": table.cost[:, columns],  # (N, E)
        }

    def __len__(self) -> int:
        return len(self.tensors["quality"])

    def __getitem__(self, indices: Tensor) -> dict[str, Tensor]:
        return {name: values.index_select(0, indices) for name, values in self.tensors.items()}


class Shuffled(Sampler[Tensor]):
    """Batches of indices (B,), in an order that depends on seed and epoch only."""

    def __init__(self, indices: Tensor, batch_size: int, seed: int) -> None:
        self.indices, self.batch_size, self.seed, self.epoch = indices, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = self.indices[permutation(len(self.indices), (self.seed, self.epoch))]
        return iter(order.split(self.batch_size))


def loader(rows: GateDataset, sampler: Sampler[Tensor] | Sequence[Tensor]) -> DataLoader[dict[str, Tensor]]:
    """Load whole batches as slices of tensors, without collating single rows."""
    return DataLoader(dataset=rows, sampler=sampler, batch_size=None, num_workers=0)


def permutation(count: int, seed: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).permutation(count))


def split(count: int, holdout: float, seed: int, table: str) -> tuple[Tensor, Tensor]:
    """Split `count` rows into indices of training rows and of the holdout, both in the order of the table."""
    if not 0 < holdout < 1:
        raise ValueError(f"data.holdout={holdout:g}: expected a number above 0 and below 1")
    num_held_out = round(holdout * count)
    if not 1 <= num_held_out < count:
        raise ValueError(
            f"data.holdout={holdout:g}: {num_held_out} of the {count} rows of {table} that have a quality would be "
            "held out, expected at least one and not all"
        )
    order = permutation(count, (seed,))
    return order[num_held_out:].sort().values, order[:num_held_out].sort().values


def moments(inputs: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (F,) float64 of the rows `indices` of (N, F), read chunk by chunk."""
    parts = indices.split(8192)
    mean = torch.stack([inputs[part].double().sum(0) for part in parts]).sum(0) / len(indices)
    squares = torch.stack([((inputs[part].double() - mean) ** 2).sum(0) for part in parts]).sum(0)
    return mean, (squares / len(indices)).sqrt()


def chosen(setting: str, wanted: Collection[Any] | None, available: Collection[Any], table: str) -> list[Any]:
    """Return the wanted exits or inputs, None being all. Raises ValueError for those that the table lacks."""
    if wanted is None:
        return list(available)
    if not wanted or not set(wanted) <= set(available):
        noun = setting.rpartition(".")[2]
        raise ValueError(f"{setting}={list(wanted)}: {table} has the {noun} {list(available)}, expected some of them")
    return list(wanted)
