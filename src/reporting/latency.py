"""Milliseconds of what a run scored, by machine, from the latency.json of its model: at every exit and of the gate."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.records.latency_table import LATENCY_FILE, PRECISIONS, LatencyTable, latency_file, read
from src.reporting.exits import Left, exits_of

Times = dict[str, dict[str, float]]  # milliseconds by machine and policy


def times_of(folder: Path, scores: Mapping[str, Mapping[str, float]], settings: Mapping[str, Any]) -> Times:
    """Return the mean milliseconds of an image by machine and policy; empty without latency.json.

    An exit takes what the table says for its mean cost; a gate takes the mean over the images of exits.csv. Of a
    machine's tables the newest in the precision that the run was scored in counts.
    Raises ValueError for a damaged file.
    """
    file = file_of(folder, settings)
    tables = [] if file is None or not file.is_file() else read(file)
    precision = precision_of(settings)
    tables = [table for table in tables if precision in (None, table.precision)]
    left = exits_of(folder) if tables and "gate" in scores else []
    found: Times = {}
    for table in sorted(tables, key=lambda one: one.measured):
        found[table.machine] = {
            policy: time
            for policy, row in scores.items()
            if (time := milliseconds(table, policy, row, left)) is not None
        }
    return {machine: times for machine, times in found.items() if times}


def precision_of(settings: Mapping[str, Any]) -> str | None:
    """Return the precision that a run was scored in: of an export or as Lightning was told; None if it chose itself."""
    return settings.get("precision") or PRECISIONS.get(str(settings.get("trainer.precision")))


def file_of(folder: Path, settings: Mapping[str, Any]) -> Path | None:
    """Return the file with the times of the model that a run scored; None if there is no such place."""
    if settings.get("latency"):
        return Path(str(settings["latency"]))
    if settings.get("ckpt_path"):
        return latency_file(str(settings["ckpt_path"]))
    return folder / LATENCY_FILE  # of a training


def milliseconds(table: LatencyTable, policy: str, row: Mapping[str, float], left: Sequence[Left]) -> float | None:
    """Return the mean time of a policy; None if it cannot be known.

    Args:
        left: where the images for which a gate chose left.
    """
    if policy == "gate":
        if not left or not {image.exit for image in left} <= set(table.exits):
            return None
        return statistics.fmean(float(table.milliseconds(image.exit, image.gflops)) for image in left)
    depth, cost = int(policy.removeprefix("exit") or 0), row.get("image_gflops", row.get("total_gflops"))
    return float(table.milliseconds(depth, cost)) if depth in table.exits and cost is not None else None
