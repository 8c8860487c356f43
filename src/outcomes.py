"""What came of jobs: rows of scores, and tables as one reads them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from src.jobs import NOT_RUN, Job

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


def table_of(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """The scores that count: of fixed exits, or of a gate."""
    rows = [row for row in rows if "utility" not in row or row["exit"] == "gate"]
    names = [name for name in SHOWN if any(name in row for row in rows)]
    table = Table("job", "status", "exit", title=title)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = (f"{row[name]:.4g}" if name in row else "" for name in names)
        table.add_row(row["job"], row["status"], str(row.get("exit", "")), *cells)
    return table


def failures(failed: dict[str, str], jobs: dict[str, Job]) -> Table:
    """Which jobs failed, why, and where that is written."""
    table = Table(
        "job", "why", Column("log", overflow="fold"), title=f"{len(failed)} of {len(jobs)} jobs failed", style="red"
    )
    for name, why in failed.items():
        table.add_row(name, why, str(jobs[name].log))
    return table
