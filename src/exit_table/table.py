"""The exit table: what a parent makes of each image at each exit, as Parquet shards that are whole or not there.

Letters: N images, E exits, C channels.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from src.records.flatten import flatten
from src.records.scores import NOTHING
from src.system.atomic import atomic_write

NOTE = b"ecoscale"  # under which a shard says what table it is of
NUMBER = b"ecoscale shard"  # and which shard it is
INPUT = "input/"  # what columns of gate inputs begin with


class About(NamedTuple):
    """What a whole table is of; every shard says it."""

    parent: str  # fingerprint of the weights
    source: str  # where they came from
    exits: list[int]
    segmentation: str
    inputs: dict[str, int]  # channels of each gate input
    split: str  # of the data: train or val
    num_images: int
    shard_size: int  # images per shard; the last may have fewer
    settings: dict[str, Any]  # that the qualities depend on

    @property
    def num_shards(self) -> int:
        return -(-self.num_images // self.shard_size)

    def shard(self, number: int) -> range:
        """Which images, by index in the split, a shard holds."""
        return range(self.num_images)[number * self.shard_size : (number + 1) * self.shard_size]


class ExitTable(NamedTuple):
    """N images at E exits, in the order of the data."""

    about: About
    image_ids: Tensor  # (N,) int64
    names: list[str]
    quality: Tensor  # (N, E) in 0..1; a row of nan for an image without anything to find
    cost: Tensor  # (N, E) GMAC at the image's own size
    inputs: dict[str, Tensor]  # (N, C) of each gate input

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def labelled(self) -> Tensor:
        """Which images have a quality, (N,) bool."""
        return ~self.quality.isnan().any(1)

    def rows(self, keep: Tensor) -> "ExitTable":
        """The images with `keep` (N,) bool set, or those that `keep` (M,) int64 names."""
        places = keep.nonzero()[:, 0] if keep.dtype == torch.bool else keep
        return ExitTable(
            self.about,
            self.image_ids[places],
            [self.names[place] for place in places.tolist()],
            self.quality[places],
            self.cost[places],
            {name: values[places] for name, values in self.inputs.items()},
        )


class Rows(NamedTuple):
    """What is labelled at a time: some images, in the order of the data."""

    image_ids: Sequence[int]
    names: Sequence[str]
    quality: Tensor  # (B, E)
    cost: Tensor  # (B, E)
    inputs: Mapping[str, Tensor]  # (B, C) each


def shard_file(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def write_shard(folder: Path, number: int, parts: Sequence[Rows], about: About) -> None:
    """Write one shard, whole or not at all; it is finished when its name ends in `.parquet`."""
    columns: dict[str, Any] = {
        "image_id": [int(one) for rows in parts for one in rows.image_ids],
        "name": [name for rows in parts for name in rows.names],
        "quality": fixed_lists([rows.quality for rows in parts]),
        "cost": fixed_lists([rows.cost for rows in parts]),
        **{f"{INPUT}{name}": fixed_lists([rows.inputs[name] for rows in parts]) for name in about.inputs},
    }
    table = pa.table(columns).replace_schema_metadata({NOTE: json.dumps(about._asdict()), NUMBER: str(number)})
    with atomic_write(shard_file(folder, number)) as part:
        pq.write_table(table, part, write_page_checksum=True)


def fixed_lists(values: Sequence[Tensor]) -> pa.FixedSizeListArray:
    """Rows (N, C) as a column of lists of C numbers."""
    whole = torch.cat(list(values)).float().cpu().numpy()
    return pa.FixedSizeListArray.from_arrays(pa.array(whole.ravel()), whole.shape[1])


def read_about(file: Path) -> About:
    """What table a shard is of. Raises ValueError for what is no shard."""
    try:
        return About(**json.loads(pq.read_schema(file).metadata[NOTE]))
    except (pa.ArrowException, OSError, TypeError, KeyError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file}: no shard of an exit table ({said})") from error


def present(folder: Path) -> list[Path]:
    """The finished shards of a folder."""
    return sorted(folder.glob("part-*.parquet"))


def read(folder: str | Path) -> ExitTable:
    """A whole table.

    Raises:
        FileNotFoundError: no such folder, or no shards in it.
        ValueError: shards that are missing, damaged or of different tables, values that cannot be.
    """
    folder = Path(folder)
    files = present(folder)
    if not files:
        raise FileNotFoundError(f"table {folder}: no part-*.parquet there; python -m src.label writes them")
    about = read_about(files[0])
    expected = [shard_file(folder, number) for number in range(about.num_shards)]
    if missing := [file.name for file in expected if file not in files]:
        raise ValueError(
            f"table {folder}: {len(missing)} of {about.num_shards} shards are missing, the first {missing[0]}; "
            "run the same python -m src.label again, it goes on where it stopped"
        )
    if extra := [file.name for file in files if file not in expected]:
        raise ValueError(f"table {folder}: {extra[0]} is not of this table, which has {about.num_shards} shards")
    parts = [read_shard(file, about, number) for number, file in enumerate(expected)]
    table = ExitTable(
        about,
        torch.from_numpy(np.concatenate([part["image_id"].to_numpy() for part in parts])),
        [name for part in parts for name in part["name"].to_pylist()],
        rows_of(parts, "quality"),
        rows_of(parts, "cost"),
        {name: rows_of(parts, f"{INPUT}{name}") for name in about.inputs},
    )
    check(table, folder)
    return table


def read_shard(file: Path, about: About, number: int) -> pa.Table:
    """One shard. Raises ValueError if it is damaged or of another table."""
    difference = differs(about, read_about(file))
    if difference is not None:
        raise ValueError(f"table {file.parent}: {file.name} is of another table than the first shard: {difference}")
    try:
        table = pq.read_table(file, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: damaged ({str(error).splitlines()[0]}); delete it and label again") from error
    lists = {"quality": len(about.exits), "cost": len(about.exits)}
    lists |= {f"{INPUT}{name}": dim for name, dim in about.inputs.items()}
    types = {"image_id": pa.int64(), "name": pa.string(), **{n: pa.list_(pa.float32(), d) for n, d in lists.items()}}
    if {field.name: field.type for field in table.schema} != types or len(table) != len(about.shard(number)):
        raise ValueError(f"{file}: not the columns or rows that it says it has; delete it and label again")
    if table.schema.metadata.get(NUMBER) != str(number).encode():
        raise ValueError(f"{file}: is another shard of this table under a wrong name; delete it and label again")
    chunks = [chunk for column in table.columns for chunk in column.chunks]
    if any(
        chunk.null_count or (pa.types.is_fixed_size_list(chunk.type) and chunk.values.null_count) for chunk in chunks
    ):
        raise ValueError(f"{file}: has nulls, which no labelling writes; delete it and label again")
    return table


def rows_of(parts: Sequence[pa.Table], column: str) -> Tensor:
    """A column of lists as (N, C) float32."""
    dim = parts[0].schema.field(column).type.list_size
    values = [chunk.flatten().to_numpy() for part in parts for chunk in part[column].chunks]
    return torch.from_numpy(np.concatenate(values)).view(-1, dim)


def check(table: ExitTable, folder: Path) -> None:
    """Refuse values that no labelling writes. Raises ValueError naming the first image that has some."""
    nan = table.quality.isnan()
    _, place, count = table.image_ids.unique(return_inverse=True, return_counts=True)
    wrong = {
        "an image id that another image has too": count[place] > 1,
        "qualities at some exits and none at others": nan.any(1) & ~nan.all(1),
        "a quality that is not in 0..1": ((table.quality < 0) | (table.quality > 1)).any(1),
        "a cost that is no number above 0": ~((table.cost > 0) & table.cost.isfinite()).all(1),
        **{f"an input {name} that is not finite": ~x.isfinite().all(1) for name, x in table.inputs.items()},
    }
    for what, rows in wrong.items():
        if rows.any():
            name = table.names[int(rows.nonzero()[0, 0])]
            raise ValueError(f"table {folder}: {name} has {what}, one of {int(rows.sum())} such images")
    if nan.all():
        raise ValueError(f"table {folder}: {NOTHING} in any of its {len(table)} images, expected annotated ones")


def differs(about: About, other: About) -> str | None:
    """The first thing that two tables disagree in, as a sentence; None if they may be one table."""
    for field in About._fields:
        ours, theirs = getattr(about, field), getattr(other, field)
        if field in ("source", "settings") or ours == theirs:
            continue  # the same weights may lie elsewhere
        return f"{field} {brief(ours)}, there {brief(theirs)}"
    ours, theirs = flatten(about.settings), flatten(other.settings)
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            return f"{key}={ours.get(key)}, there {theirs.get(key)}"
    return None


def brief(value: Any) -> str:
    """A value, a fingerprint by its beginning."""
    return value[:12] if isinstance(value, str) else str(value)
