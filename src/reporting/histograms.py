"""How many images leave at each exit, as bars of a page."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from statistics import mean

from src.records.scores import SHARE
from src.reporting.markup import details
from src.reporting.points import Panel
from src.reporting.runs import Run

NAMED = 0.09  # share of a bar that has room for words
OPEN = 24  # bars that are shown at once

Shares = dict[int, float]  # of images, by exit


def histograms(panel: Panel) -> str:
    """Return two bars for each gate: the exits it chooses, and the best exits of its training images."""
    bars = []
    for point in panel.points:
        if point.kind != "gate":
            continue
        title = point.series if point.beta is None else f"{point.series}, beta {point.beta:g}"
        best = '<span class="soft">best for the images trained on</span>'
        for said, shares in (
            (escape(title), [chosen(run) for run in point.runs]),
            (best, [counted(run, "labels") for run in point.runs]),
        ):
            if averaged := average(shares):
                bars.append(f"<div>{said}</div>{bar(averaged)}")
    if not bars:
        return ""
    return details("Where images leave", f'<div class="bars">{"".join(bars)}</div>', is_open=len(bars) <= OPEN)


def bar(shares: Shares) -> str:
    """Return shares side by side, deeper exits darker."""
    parts = []
    for place, (depth, share) in enumerate(sorted(shares.items())):
        light = 50 - 28 * place / max(len(shares) - 1, 1)
        said = f"{depth}: {100 * share:.0f} %"
        parts.append(
            f'<span style="width:{100 * share:.2f}%;background:hsl(212 62% {light:.0f}%)" title="exit {said}">'
            f"{said if share >= NAMED else ''}</span>"
        )
    return f'<div class="bar">{"".join(parts)}</div>'


def chosen(run: Run) -> Shares:
    """Return the share of images that a gate sends to each exit, among those it was scored on."""
    scores = run.scores.get("gate", {})
    names = [name for name in scores if re.fullmatch(rf"{SHARE}\d+", name)]
    return {int(name.removeprefix(SHARE)): scores[name] for name in names} or counted(run, "taken")


def counted(run: Run, name: str) -> Shares:
    """Return counts by exit as shares; empty if they are missing, damaged or all 0."""
    counts = run.content.get(name)
    if not isinstance(counts, Mapping) or not all(d.isdecimal() and type(n) is int for d, n in counts.items()):
        return {}
    total = sum(counts.values())
    return {int(depth): number / total for depth, number in counts.items()} if total else {}


def average(shares: Sequence[Shares]) -> Shares:
    """Return the mean over seeds; empty if they have different exits."""
    if any(one.keys() != shares[0].keys() for one in shares):
        return {}
    return {depth: mean(one[depth] for one in shares) for depth in shares[0]}
