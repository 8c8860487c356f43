"""Results of runs, to compare killed runs with uninterrupted ones."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pyarrow import parquet

from src.exit_table.table import TableInfo, read_info


def results_of_run(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield logs, weights, scores and exit tables of one run folder."""
    for name in ("scores.json", "gate.json"):
        if (folder / name).is_file():
            content = json.loads((folder / name).read_text())
            yield name, {key: value for key, value in content.items() if key != "made_by"}
    logged: dict[str, dict[str, str]] = {}
    if (folder / "metrics.csv").is_file():
        with open(folder / "metrics.csv") as stream:
            for row in csv.DictReader(stream):
                logged.setdefault(row["step"], {}).update({name: value for name, value in row.items() if value})
    yield "metrics.csv", logged
    for name in ("last", "best"):
        if (file := folder / "checkpoints" / f"{name}.ckpt").exists():
            content = torch.load(file, weights_only=True)
            state = {key: value.tolist() for key, value in content["state_dict"].items()}
            yield f"{name}.ckpt", (content["global_step"], state)
    for shard in sorted(folder.glob("table/*.parquet")):
        yield shard.name, content_of(shard)
    yield "parts left behind", [str(part) for part in folder.rglob(".*.part*")]


def content_of(shard: Path) -> tuple[TableInfo, bytes]:
    """Return the content of a shard without the path of its parent, which differs between folders."""
    table = parquet.read_table(shard).replace_schema_metadata(None)
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return read_info(shard)._replace(source=""), stream.getvalue().to_pybytes()


def results_of_jobs(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the table of all jobs and the results of each."""
    yield "table.csv", (folder / "table.csv").read_text().replace(str(folder), "")
    for begun in sorted(folder.rglob("begun")):
        for name, value in results_of_run(begun.parent):
            yield f"{begun.parent.relative_to(folder)}/{name}", value
