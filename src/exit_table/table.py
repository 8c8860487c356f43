"""ECO-M2F's exit table: for each image the quality and cost of every exit and the inputs of a gate, as Parquet shards.

Letters: N images, B images of a batch, E exits, C channels.
"""

import json
import math
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

METADATA_KEY = b"ecoscale"  # of the TableInfo in a shard's metadata
SHARD_NUMBER_KEY = b"ecoscale shard"
INPUT_PREFIX = "input/"  # of the columns of gate inputs
RANGES = {"score": (0.0, 1.0), "loss": (-math.inf, math.inf)}  # of finite qualities; larger is better


class TableInfo(NamedTuple):
    """Metadata of a whole table, stored in every shard."""

    parent: str  # fingerprint of the weights
    source: str  # file or hub name of the weights
    exits: list[int]
    segmentation: str
    inputs: dict[str, int]  # channels of each gate input
    split: str  # of the data: train or val
    num_images: int
    shard_size: int  # images per shard; the last may have fewer
    settings: dict[str, Any]  # that the qualities depend on

    @property
    def quality(self) -> str:
        """What the qualities are: `score` (PQ, mean IoU or AP) or `loss` (minus the loss)."""
        return self.settings.get("task.quality", "score")

    @property
    def num_shards(self) -> int:
        return -(-self.num_images // self.shard_size)

    def shard(self, number: int) -> range:
        """Return the indices, in the split, of the images of a shard."""
        return range(self.num_images)[number * self.shard_size : (number + 1) * self.shard_size]


class ExitTable(NamedTuple):
    """N images at E exits, in the order of the data."""

    info: TableInfo
    image_ids: Tensor  # (N,) int64
    names: list[str]
    quality: Tensor  # (N, E), see `RANGES`; all NaN for an image without annotations
    cost: Tensor  # (N, E) GFLOPs at the image's own size
    inputs: dict[str, Tensor]  # (N, C) of each gate input

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def labelled(self) -> Tensor:
        """Mask of the images with a quality: (N,) bool."""
        return ~self.quality.isnan().any(1)

    def rows(self, keep: Tensor) -> "ExitTable":
        """Select images by a mask (N,) bool or by indices (M,) int64."""
        indices = torch.arange(len(self))[keep]
        return ExitTable(
            self.info,
            self.image_ids[indices],
            [self.names[index] for index in indices.tolist()],
            self.quality[indices],
            self.cost[indices],
            {name: values[indices] for name, values in self.inputs.items()},
        )


class LabelledBatch(NamedTuple):
    """The labels of B images, in the order of the data."""

    image_ids: Sequence[int]
    names: Sequence[str]
    quality: Tensor  # (B, E)
    cost: Tensor  # (B, E)
    inputs: Mapping[str, Tensor]  # (B, C) each


def shard_file(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def write_shard(folder: Path, number: int, batches: Sequence[LabelledBatch], info: TableInfo) -> None:
    """Write one shard atomically: a file whose name ends in `.parquet` is complete."""
    columns: dict[str, Any] = {
        "image_id": [int(image_id) for batch in batches for image_id in batch.image_ids],
        "name": [name for batch in batches for name in batch.names],
        "quality": list_column([batch.quality for batch in batches]),
        "cost": list_column([batch.cost for batch in batches]),
    }
    for name in info.inputs:
        columns[INPUT_PREFIX + name] = list_column([batch.inputs[name] for batch in batches])
    with atomic_write(shard_file(folder, number)) as part:
        pq.write_table(pa.table(columns, schema=schema_of(info, number)), part, write_page_checksum=True)


def schema_of(info: TableInfo, number: int) -> pa.Schema:
    """Return the columns of a shard, with the metadata that identify it."""
    per_exit = pa.list_(pa.float32(), len(info.exits))
    types = {"image_id": pa.int64(), "name": pa.string(), "quality": per_exit, "cost": per_exit}
    for name, dim in info.inputs.items():
        types[INPUT_PREFIX + name] = pa.list_(pa.float32(), dim)
    return pa.schema(types, {METADATA_KEY: json.dumps(info._asdict()), SHARD_NUMBER_KEY: str(number)})


def list_column(values: Sequence[Tensor]) -> pa.FixedSizeListArray:
    """Join batches (B, C) into a column of N lists of C numbers."""
    whole = torch.cat(list(values)).float().cpu().numpy()
    return pa.FixedSizeListArray.from_arrays(pa.array(whole.ravel()), whole.shape[1])


def read_info(file: Path) -> TableInfo:
    """Read the table's metadata from a shard. Raises ValueError if the file is not a shard."""
    try:
        return TableInfo(**json.loads(pq.read_schema(file).metadata[METADATA_KEY]))
    except (pa.ArrowException, OSError, TypeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file}: not a shard of an exit table ({reason})") from error


def finished_shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def read_table(folder: str | Path) -> ExitTable:
    """Read and validate a whole table.

    Raises:
        FileNotFoundError: the folder does not exist or has no shards.
        ValueError: shards are missing, damaged or of different tables, or values are invalid.
    """
    folder = Path(folder)
    files = finished_shards(folder)
    if not files:
        raise FileNotFoundError(f"table {folder}: no part-*.parquet there; python -m src.label writes them")
    info = read_info(files[0])
    expected = [shard_file(folder, number) for number in range(info.num_shards)]
    if missing := [file.name for file in expected if file not in files]:
        raise ValueError(
            f"table {folder}: {len(missing)} of {info.num_shards} shards are missing, the first {missing[0]}; "
            "run the same python -m src.label again to resume"
        )
    if extra := [file.name for file in files if file not in expected]:
        raise ValueError(f"table {folder}: {extra[0]} is not of this table, which has {info.num_shards} shards")
    whole = pa.concat_tables(read_shard(file, info, number) for number, file in enumerate(expected))
    table = ExitTable(
        info,
        torch.tensor(whole["image_id"].to_numpy()),
        whole["name"].to_pylist(),
        column_values(whole["quality"]),
        column_values(whole["cost"]),
        {name: column_values(whole[INPUT_PREFIX + name]) for name in info.inputs},
    )
    validate_values(table, folder)
    return table


def read_shard(file: Path, info: TableInfo, number: int) -> pa.Table:
    """Read one shard. Raises ValueError if it is damaged or of another table."""
    difference = first_difference(info, read_info(file))
    if difference is not None:
        raise ValueError(f"table {file.parent}: {file.name} is of another table than the first shard: {difference}")
    try:
        shard = pq.read_table(file, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: damaged ({str(error).splitlines()[0]}); delete it and label again") from error
    schema = schema_of(info, number)
    columns, expected = (dict(zip(one.names, one.types, strict=True)) for one in (shard.schema, schema))
    if columns != expected or len(shard) != len(info.shard(number)):
        flaw = "columns or rows differ from its metadata"
    elif shard.schema.metadata.get(SHARD_NUMBER_KEY) != schema.metadata[SHARD_NUMBER_KEY]:
        flaw = "is another shard of this table under a wrong name"
    elif any(has_nulls(column) for column in shard.columns):
        flaw = "has nulls, which python -m src.label never writes"
    else:
        return shard.select(schema.names)
    raise ValueError(f"{file}: {flaw}; delete it and label again")


def has_nulls(column: pa.ChunkedArray) -> bool:
    """Whether a column, or a list in it, has a null."""
    has_lists = pa.types.is_fixed_size_list(column.type)
    return bool(column.null_count or (has_lists and any(chunk.values.null_count for chunk in column.chunks)))


def column_values(column: pa.ChunkedArray) -> Tensor:
    """Return a column of N lists of C numbers as (N, C) float32."""
    values = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return torch.from_numpy(values).view(-1, column.type.list_size)


def validate_values(table: ExitTable, folder: Path) -> None:
    """Check ids, qualities, costs and inputs. Raises ValueError naming the first image with an invalid value."""

    def refuse(wrong: Tensor, problem: str) -> None:  # wrong: (N,) bool
        if wrong.any():
            name = table.names[int(wrong.nonzero()[0, 0])]
            raise ValueError(f"table {folder}: {name} has {problem}, one of {int(wrong.sum())} such images")

    _, index, count = table.image_ids.unique(return_inverse=True, return_counts=True)
    refuse(count[index] > 1, "an image id that another image has too")
    missing = table.quality.isnan()
    refuse(missing.any(1) & ~missing.all(1), "a quality at some exits only, expected all or none")
    if (kind := table.info.quality) not in RANGES:
        raise ValueError(f"table {folder}: task.quality={kind}, expected one of {', '.join(RANGES)}")
    least, most = RANGES[kind]
    refuse(((table.quality < least) | (table.quality > most)).any(1), f"a quality outside {least:g}..{most:g}")
    refuse(table.quality.isinf().any(1), "an infinite quality")
    refuse(~((table.cost > 0) & table.cost.isfinite()).all(1), "a non-positive or non-finite cost")
    for name, values in table.inputs.items():
        refuse(~values.isfinite().all(1), f"a non-finite input {name}")
    if missing.all():
        raise ValueError(f"table {folder}: {NOTHING} in any of its {len(table)} images, expected annotated ones")


def first_difference(info: TableInfo, other: TableInfo) -> str | None:
    """Describe the first field or setting that differs; None if both may be of one table.

    `source` may differ: the same weights can be stored in several places.
    """
    for field in ("parent", "exits", "segmentation", "quality", "inputs", "split", "num_images", "shard_size"):
        ours, theirs = getattr(info, field), getattr(other, field)
        if ours != theirs:
            if field == "parent":  # the start of a fingerprint is enough
                ours, theirs = ours[:12], theirs[:12]
            return f"{field} {ours}, there {theirs}"
    our_settings, their_settings = flatten(info.settings), flatten(other.settings)
    for key in sorted(our_settings.keys() | their_settings.keys()):
        if our_settings.get(key) != their_settings.get(key):
            return f"{key}={our_settings.get(key)}, there {their_settings.get(key)}"
    return None
