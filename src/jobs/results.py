"""Results of jobs: rows of scores, and tables of them."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from src.jobs.job import Job
from src.jobs.running import NOT_RUN
from src.records.scores import GATE_FILE, QUALITIES, SCORES_FILE, pareto_front, policies_of

MEASURES = (*QUALITIES, "quality")  # the first one that a row has is its quality
COSTS = ("total_gflops", "gflops")  # the first one that a row has is its cost
SIZE = "data.resize"  # settings that change what an image costs, and not what image_size does
SHOWN = ("pq", "miou", "ap", "box_ap", "quality", "utility", "depth", "gflops", "total_gflops")


def rows_of(job: Job, values: dict[str, str], failed: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield a row of scores for each policy of a job, or one row without scores.

    Args:
        values: settings that tell the job from its siblings; they become columns.
        failed: reasons of failures by job name.
    """
    status = "done" if job.done else NOT_RUN
    if not failed.get(job.name, NOT_RUN).startswith(NOT_RUN):
        status = "failed"
    about = {"job": job.name, **values, "status": status}
    rows = scores_of(job.folder) if status == "done" else {}
    for policy, scores in rows.items():
        yield {**about, "exit": policy, **scores}
    if not rows:
        yield about


def scores_of(run: Path) -> dict[str, dict[str, float]]:
    """Return the latest scores of a run folder by depth ("2") and policy ("gate"); of gate.json by policy alone."""
    if (run / GATE_FILE).is_file():
        return policies_of(json.loads((run / GATE_FILE).read_text()))
    if not (run / SCORES_FILE).is_file():
        return {}
    policies = policies_of(json.loads((run / SCORES_FILE).read_text()))
    return {policy.removeprefix("exit"): scores for policy, scores in policies.items()}


def objectives(scores: dict[str, dict[str, float]]) -> list[float] | None:
    """Return quality and GFLOPs of the gate, else of the deepest exit; None if either is missing or NaN."""
    if not scores:
        return None
    row = scores["gate" if "gate" in scores else max(scores, key=int)]
    values = [first_value(row, MEASURES), first_value(row, COSTS)]
    return values if all(map(math.isfinite, values)) else None


def first_value(row: dict[str, Any], names: Sequence[str]) -> float:
    """Return the first of some scores that a row has, else NaN."""
    return next((row[name] for name in names if name in row), math.nan)


def costs_of(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return the names of costs to compare by: those of the images if jobs differ in the size of these."""
    sizes = any(str(name).startswith(SIZE) for row in rows for name in row)
    return ("image_gflops", *COSTS) if sizes else COSTS


def attainable(row: dict[str, Any]) -> bool:
    """Whether a policy can be used without the truth: of a gate's rows on its exit table, only "gate"."""
    return "utility" not in row or row["exit"] == "gate"


def mark_pareto(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows; those with quality and cost get `front`: whether they are in the Pareto set."""
    costs = costs_of(rows)
    points = [(first_value(row, costs), first_value(row, MEASURES)) for row in rows]
    scored = [i for i, row in enumerate(rows) if attainable(row) and all(map(math.isfinite, points[i]))]
    for i, best in zip(scored, pareto_front([points[i] for i in scored]), strict=True):
        rows[i]["front"] = best
    return rows


def result_tables(rows: Sequence[dict[str, Any]], title: str) -> Iterator[Table]:
    """Yield the table of results and, if some are marked as such, the table of the Pareto set."""
    usable, costs = [row for row in rows if attainable(row)], costs_of(rows)
    scores = [name for name in dict.fromkeys((*SHOWN, *costs)) if any(name in row for row in usable)]
    table = table_of(title, ("job", "status", "exit"), scores)
    for row in usable:
        numbers = [f"{row[name]:.4g}" if name in row else "" for name in scores]
        table.add_row(row["job"], row["status"], str(row.get("exit", "")), *numbers)
    yield table
    front = [row for row in rows if row.get("front")]
    if front:
        num_scored = sum("front" in row for row in rows)
        table = table_of(f"Pareto set: {len(front)} of {num_scored}", ("job", "exit"), ("quality", "GFLOPs"))
        for row in sorted(front, key=lambda row: first_value(row, costs)):
            numbers = [f"{first_value(row, names):.4g}" for names in (MEASURES, costs)]
            table.add_row(row["job"], row["exit"], *numbers)
        yield table


def failure_table(failed: dict[str, str], jobs: dict[str, Job]) -> Table:
    """Return a table of failed jobs, each with its reason and its log."""
    table = table_of(f"{len(failed)} of {len(jobs)} jobs failed", ("job", "why", "log"), style="red")
    for name, reason in failed.items():
        table.add_row(name, reason, str(jobs[name].log))
    return table


def table_of(title: str, texts: Sequence[str], numbers: Sequence[str] = (), style: str = "") -> Table:
    """Return an empty table with columns of texts, which wrap, and of numbers."""
    columns = [Column(name, overflow="fold") for name in texts]
    columns += [Column(name, justify="right", no_wrap=True) for name in numbers]
    return Table(*columns, title=title, style=style)
