"""What came of jobs: rows of scores, and tables as one reads them."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from src.jobs.running import NOT_RUN, Job
from src.records.pareto import pareto_front
from src.records.scores import QUALITIES

MEASURES, COSTS = (*QUALITIES, "quality"), ("total_gflops", "gflops")  # the first that a row has counts
SHOWN = ("pq", "miou", "ap", "quality", "utility", "depth", "gflops", "total_gflops")


def rows_of(job: Job, given: dict[str, str], failed: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What a job came to, a row for each exit or chooser of exits."""
    if (why := failed.get(job.name)) is None:
        status = "done" if job.done else NOT_RUN
    else:
        status = NOT_RUN if why.startswith(NOT_RUN) else "failed"
    rows = scores_of(job.folder) if status == "done" else {}
    for who, scores in rows.items():
        yield {"job": job.name, **given, "status": status, "exit": who, **scores}
    if not rows:
        yield {"job": job.name, **given, "status": status}


def scores_of(run: Path) -> dict[str, dict[str, float]]:
    """The last scores of a run folder, by exit or by who chose the exits."""
    scores, gate = run / "scores.json", run / "gate.json"
    if gate.is_file():
        return json.loads(gate.read_text())["outcomes"]
    if not scores.is_file():
        return {}
    content = json.loads(scores.read_text())
    return content["exits"] | ({"gate": content["gate"]} if "gate" in content else {})


def objectives(scores: dict[str, dict[str, float]]) -> list[float] | None:
    """Quality and GFLOPs of the gate, or of the deepest exit; None where they are missing or NaN."""
    row = scores["gate"] if "gate" in scores else scores[max(scores, key=int)] if scores else {}
    values = [value_of(row, MEASURES), value_of(row, COSTS)]
    return values if all(map(math.isfinite, values)) else None


def value_of(row: dict[str, Any], names: Sequence[str]) -> float:
    """The first of some scores that a row has."""
    return next((row[name] for name in names if name in row), math.nan)


def attainable(row: dict[str, Any]) -> bool:
    """Whether a row is of fixed exits, or of a gate where there are gates."""
    return "utility" not in row or row["exit"] == "gate"


def marked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, those that can be had with `front`: whether no other is as good for less."""
    points = [(value_of(row, COSTS), value_of(row, MEASURES)) for row in rows]
    scored = [i for i, row in enumerate(rows) if attainable(row) and all(map(math.isfinite, points[i]))]
    for i, best in zip(scored, pareto_front([points[i] for i in scored]), strict=True):
        rows[i]["front"] = best
    return rows


def table_of(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """The scores that count: of fixed exits, or of a gate."""
    rows = [row for row in rows if attainable(row)]
    names = [name for name in SHOWN if any(name in row for row in rows)]
    table = Table(Column("job", overflow="fold"), "status", "exit", title=title)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = (f"{row[name]:.4g}" if name in row else "" for name in names)
        table.add_row(row["job"], row["status"], str(row.get("exit", "")), *cells)
    return table


def front_of(rows: Sequence[dict[str, Any]]) -> Table:
    """The Pareto set, cheapest first."""
    best = sorted((row for row in rows if row.get("front")), key=lambda row: value_of(row, COSTS))
    scored = sum("front" in row for row in rows)
    title = f"Pareto set: {len(best)} of {scored} are beaten by none"
    table = Table(Column("job", overflow="fold"), "exit", title=title)
    for name in ("quality", "GFLOPs"):
        table.add_column(name, justify="right")
    for row in best:
        table.add_row(row["job"], row["exit"], *(f"{value_of(row, names):.4g}" for names in (MEASURES, COSTS)))
    return table


def failures(failed: dict[str, str], jobs: dict[str, Job]) -> Table:
    """Which jobs failed, why, and where that is written."""
    table = Table(
        *(Column(name, overflow="fold") for name in ("job", "why", "log")),
        title=f"{len(failed)} of {len(jobs)} jobs failed",
        style="red",
    )
    for name, why in failed.items():
        table.add_row(name, why, str(jobs[name].log))
    return table
