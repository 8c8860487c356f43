"""latency.json: milliseconds of an image at every exit, measured by `src.measure`, by class of machine.

{"version": 1, "tables": [{"machine": "x86_64, AMD EPYC 7B13, 2 threads", "runtime": "torch 2.9.1", "precision":
"float32", "measured": "2026-11-27", "rows": [{"size": [512, 672], "exit": 1, "gflops": 12.3, "ms": 41.2, "low": 40.8,
"high": 42.0, "rounds": 9}]}]}

`ms` is a median, `low` and `high` are quartiles. Rows of other schedules stand under "schedules" of a table.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from src.system.atomic import write_json

LATENCY_FILE, VERSION = "latency.json", 1
MEASURES = "python -m src.measure ckpt_path=FILE"
PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}  # as Lightning spells them
KINDS = ("machine", "runtime", "precision", "measured")  # texts that say what a table is of


NO_SCHEDULES: Mapping[Any, Any] = MappingProxyType({})


class Row(NamedTuple):
    """The time of one exit at one size."""

    size: tuple[int, int]  # (height, width)
    exit: int
    gflops: float
    ms: float  # median
    low: float  # quartiles
    high: float
    rounds: int


class LatencyTable:
    """Times of one model on one class of machine.

    Args:
        machine: its class, see `src/system/machine.py`. runtime: name and version, "torch 2.9.1".
        precision: float32, bfloat16, float16 or int8. measured: the day.
        schedules: rows of the same model with other schedules, for comparison only.
        source: the file, for messages.
    """

    def __init__(
        self,
        machine: str,
        runtime: str,
        precision: str,
        measured: str,
        rows: Iterable[Row],
        schedules: Mapping[tuple[int, ...], list[Row]] = NO_SCHEDULES,
        source: str = LATENCY_FILE,
    ):
        self.machine, self.runtime, self.precision, self.measured = machine, runtime, precision, measured
        self.rows, self.schedules, self.source = list(rows), dict(schedules), source

    @property
    def key(self) -> tuple[str, str, str]:
        """What tables are looked up by: the machine, the name of the runtime without its version, the precision."""
        return self.machine, self.runtime.partition(" ")[0], self.precision

    @property
    def exits(self) -> list[int]:
        return sorted({row.exit for row in self.rows})

    def milliseconds(self, exit: int, gflops: Any) -> np.ndarray:
        """Return milliseconds at an exit for costs in GFLOPs of any shape.

        Piecewise linear through the rows of the exit; in proportion to the cost below the first and beyond the last.
        Raises ValueError for an exit that was not measured.
        """
        rows = [row for row in self.rows if row.exit == exit]
        if not rows:
            there = ", ".join(map(str, self.exits))
            raise ValueError(f"latency={self.source}: exit {exit} was not measured, there are {there}; {MEASURES}")
        costs = np.unique([row.gflops for row in rows])
        times = np.array([np.mean([row.ms for row in rows if row.gflops == cost]) for cost in costs])
        wanted = np.asarray(gflops, dtype=np.float64)
        beyond = np.where(wanted < costs[0], wanted / costs[0], np.maximum(wanted / costs[-1], 1.0))
        return np.interp(wanted, costs, times) * beyond

    def merged(self, older: "LatencyTable") -> "LatencyTable":
        """Return the table with the rows of an older one of the same runtime for sizes and exits that it lacks."""
        if older.runtime != self.runtime:
            return self
        mine = {(row.size, row.exit) for row in self.rows}
        rows = sorted([*self.rows, *(row for row in older.rows if (row.size, row.exit) not in mine)])
        schedules = self.schedules or older.schedules
        return LatencyTable(self.machine, self.runtime, self.precision, self.measured, rows, schedules, self.source)

    def content(self) -> dict[str, Any]:
        """Return the table as the file has it."""
        kinds = {name: getattr(self, name) for name in KINDS}
        others = [{"schedule": list(schedule), "rows": plain(rows)} for schedule, rows in self.schedules.items()]
        return {**kinds, "rows": plain(self.rows), **({"schedules": others} if others else {})}


def plain(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return rows as JSON has them."""
    return [{**row._asdict(), "size": list(row.size)} for row in rows]


def latency_file(weights: str | None) -> Path | None:
    """Return latency.json in the run folder of a checkpoint of ours; None for weights from elsewhere."""
    if weights is None or Path(weights).suffix != ".ckpt":
        return None
    folder = Path(weights).absolute().parent
    return (folder.parent if folder.name == "checkpoints" else folder) / LATENCY_FILE


def read(file: Path) -> list[LatencyTable]:
    """Read latency.json. Raises FileNotFoundError, or ValueError in one line for any other file."""
    if not file.is_file():
        raise FileNotFoundError(f"latency={file}: no such file; {MEASURES} writes it")
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"latency={file}: cannot be read, perhaps cut short ({why}); {MEASURES} writes one") from error
    if not isinstance(content, dict) or not isinstance(content.get("tables"), list):
        raise ValueError(f"latency={file}: no table of latencies; {MEASURES} writes one")
    if content.get("version") != VERSION:
        raise ValueError(f"latency={file}: version {content.get('version')!r}, expected {VERSION}; measure again")
    return [table_of(table, f"latency={file}", str(file)) for table in content["tables"]]


def table_of(content: Any, place: str, source: str = LATENCY_FILE) -> LatencyTable:
    """Return a table from what a file has. Raises ValueError that begins with `place`."""
    try:
        kinds = {name: content[name] for name in KINDS}
        rows = [row_of(row) for row in content["rows"]]
        if not rows or not all(isinstance(kind, str) for kind in kinds.values()):
            raise ValueError("a table without rows, or with names that are no text")
        others = {tuple(one["schedule"]): list(map(row_of, one["rows"])) for one in content.get("schedules", ())}
        return LatencyTable(**kinds, rows=rows, schedules=others, source=source)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{place}: a damaged table of latencies, {why}; measure again: {MEASURES}") from error


def row_of(content: Any) -> Row:
    """Return a row from what a file has. Raises KeyError, TypeError or ValueError for anything else."""
    height, width = content["size"]
    row = Row((height, width), **{name: content[name] for name in Row._fields if name != "size"})
    if any(type(value) is not int or value < 1 for value in (height, width, row.exit, row.rounds)):
        raise ValueError(f"size {content['size']}, exit {row.exit}, rounds {row.rounds}: expected whole numbers from 1")
    for name in ("gflops", "ms", "low", "high"):
        value = getattr(row, name)
        if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
            raise ValueError(f"{name} is {value!r}, expected a number above 0")
    return row


def find(tables: Sequence[LatencyTable], machine: str, runtime: str, precision: str) -> LatencyTable:
    """Return the newest table of a machine, a runtime (of any version) and a precision.

    Raises ValueError, with what there is and how to measure, if there is none.
    """
    matching = [table for table in tables if table.key == (machine, runtime, precision)]
    if not matching:
        source = tables[0].source if tables else LATENCY_FILE
        there = "; ".join(dict.fromkeys(", ".join(table.key) for table in tables)) or "none"
        raise ValueError(
            f"latency={source}: no table of this machine ({machine}, {runtime}, {precision}), there are: {there}; "
            f"{MEASURES} adds it"
        )
    return max(matching, key=lambda table: table.measured)


def update(file: Path, table: LatencyTable) -> LatencyTable:
    """Add a table to a file, in place of one of the same machine, runtime and precision; return what was written.

    Rows of other sizes stay if they are of the same version of the runtime. Raises ValueError, before anything is
    written, for a file that is no table of latencies, and OSError.
    """
    there = read(file) if file.exists() else []
    table.source = str(file)
    for older in there:
        if older.key == table.key:
            table = table.merged(older)
    others = [older for older in there if older.key != table.key]
    write_json({"version": VERSION, "tables": [one.content() for one in (*others, table)]}, file)
    return table
