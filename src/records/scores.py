"""Scores of a run: their names in scores.json and gate.json, and one reader for both files.

A policy is the way an exit is chosen: "exit2" for a fixed depth, "gate", "oracle" or "random".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SCORES_FILE, GATE_FILE = "scores.json", "gate.json"  # of segmentation, of a gate on its exit table
JUDGE_FILE = "judge.json"  # of gates beside fixed exits, chance and the noise ceiling
QUALITIES = ("pq", "ap", "miou", "box_ap")  # the first one present is the main score
NOTHING = "nothing to score"  # shown for a score that is NaN because the images have no annotations
SHARE = "share_exit"  # prefix of the share of images that leave at an exit, followed by its depth


def quality_of(rows: Iterable[Mapping[str, float]]) -> str | None:
    """Return the name of the main score in some rows, None if they have none."""
    names = {name for row in rows for name in row}
    return next((name for name in QUALITIES if name in names), None)


def policies_of(content: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return scores by policy from the content of scores.json or gate.json. Raises KeyError for missing entries."""
    if "beta" in content:  # a gate's
        return dict(content["outcomes"])
    policies = {f"exit{int(depth)}": row for depth, row in content["exits"].items()}
    if "gate" in content:
        policies["gate"] = content["gate"]
    return policies


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return for each (cost, quality) whether no other point is at least as good at the same cost or less.

    Equal points are in the front together.
    """
    return [not any(dominates(other, point) for other in points) for point in points]


def dominates(other: tuple[float, float], point: tuple[float, float]) -> bool:
    return other != point and other[0] <= point[0] and other[1] >= point[1]
