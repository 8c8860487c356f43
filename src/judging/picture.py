"""The picture of a judgement: quality against GFLOPs of fixed exits, their hull, gates, chance, oracle and ceiling."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.judging.session import Answered, Answers
from src.judging.tables import interval, subject
from src.metrics.bootstrap import Estimate
from src.system.atomic import atomic_write

PALETTE = ("#2f7fd0", "#e0742b", "#2a9d6a", "#c94f7c", "#8a63d2", "#b08d1e", "#2aa3b5", "#d0493f", "#7d8b3a", "#9a6b4f")
MARKERS = {"gate": "o", "random": "x", "oracle": "^", "ceiling": "*"}
SHARED = ("oracle", "ceiling")  # by all gates with one beta
NAMES = {"oracle": "oracle, with noise", "ceiling": "noise ceiling"}


def write_picture(answers: Answers, file: Path) -> None:
    """Draw a panel for each set of images: gates have holdouts of their own if their seeds differ. Raises OSError."""
    panels = [list(same) for _, same in groupby(answers.answers, key=fixed_exits)]
    figure = Figure(figsize=(10, 5.2 * len(panels)), layout="constrained")
    for axes, same in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        draw(axes, same)
        axes.set_title(f"{answers.question.table}, {same[0].judgement.num_images} images", fontsize=10)
    with atomic_write(file) as part:
        figure.savefig(part, dpi=110)


def fixed_exits(one: Answered) -> list[Any]:
    """Return the results of the fixed exits, which tell sets of images apart."""
    return [(row["quality"], row["gflops"]) for name, row in one.judgement.policies.items() if name.startswith("exit")]


def draw(axes: Axes, same: Sequence[Answered]) -> None:
    """Draw judgements on the same images; error bars are 95 % intervals."""
    first = same[0].judgement
    exits = {depth: first.policies[f"exit{depth}"] for depth in depths_of(same[0])}
    for depth, row in exits.items():
        point(axes, row, "D", "black", "fixed exits" if depth == min(exits) else "")
        at = (row["gflops"].value, row["quality"].value)
        axes.annotate(str(depth), at, (6, -11), textcoords="offset points", fontsize=9)
    hull = [exits[depth] for depth in first.corners]
    xs, ys = ([row[name].value for row in hull] for name in ("gflops", "quality"))
    axes.plot(xs, ys, color="#888888", linewidth=1, label="hull of the fixed exits", zorder=0)
    for number, one in enumerate(same):
        color = PALETTE[number % len(PALETTE)]
        for policy, marker in MARKERS.items():
            again = policy in SHARED and one.judgement.beta in [other.judgement.beta for other in same[:number]]
            if policy in one.judgement.policies and not again:
                point(axes, one.judgement.policies[policy], marker, color, label_of(policy, one, number))
    axes.set_xlabel("GFLOPs of an image (1e9 multiply-adds)")
    axes.set_ylabel("quality of an image")
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def label_of(policy: str, one: Answered, number: int) -> str:
    """Return the line of the legend; random exits have one for all gates, whose colours they have."""
    if policy == "random":
        return "" if number else "random, histogram of that gate"
    return f"{NAMES[policy]}: beta {one.judgement.beta:g}" if policy in SHARED else subject(one)


def depths_of(one: Answered) -> list[int]:
    return [int(name.removeprefix("exit")) for name in one.judgement.policies if name.startswith("exit")]


def point(axes: Axes, row: dict[str, Estimate], marker: str, color: str, label: str) -> None:
    """Draw a policy with the interval of its quality."""
    below, above = interval(row["quality"])
    axes.errorbar(
        row["gflops"].value, row["quality"].value, [[below], [above]], fmt=marker, color=color, label=label or None,
        markersize=9 if marker == "*" else 5, linewidth=1, capsize=2,
    )  # fmt: skip
