"""How many images leave at each exit, as bars of a page."""

from collections.abc import Mapping, Sequence
from html import escape
from statistics import mean

from src.records.scores import SHARE
from src.reporting.points import Panel
from src.reporting.runs import Run

NAMED = 0.09  # share of a bar that has room for words
OPEN = 24  # bars that are shown at once

Shares = dict[int, float]  # of images, by exit


def histograms(panel: Panel) -> str:
    """Two bars for each gate: what it takes, and what would be best for the images it learnt from."""
    bars = []
    for point in (point for point in panel.points if point.kind == "gate"):
        title = f"{point.series}{'' if point.beta is None else f', beta {point.beta:g}'}"
        choices = {"": together([taken(run) for run in point.runs])}
        choices["best for the images trained on"] = together([counted(run, "labels") for run in point.runs])
        for what, shares in choices.items():
            if shares:
                said = f'<span class="soft">{what}</span>' if what else escape(title)
                bars.append(f"<div>{said}</div>{bar(shares)}")
    if not bars:
        return ""
    is_open = " open" * (len(bars) <= OPEN)
    return f'<details{is_open}><summary>Where images leave</summary><div class="bars">{"".join(bars)}</div></details>'


def bar(shares: Shares) -> str:
    """Shares side by side, deeper exits darker."""
    parts = []
    for place, (depth, share) in enumerate(sorted(shares.items())):
        light = 50 - 28 * place / max(len(shares) - 1, 1)
        said = f"{depth}: {100 * share:.0f} %"
        parts.append(
            f'<span style="width:{100 * share:.2f}%;background:hsl(212 62% {light:.0f}%)" title="exit {said}">'
            f"{said if share >= NAMED else ''}</span>"
        )
    return f'<div class="bar">{"".join(parts)}</div>'


def taken(run: Run) -> Shares:
    """Shares of the images that a gate was scored on."""
    logged = run.scores.get("gate", {})
    shares = {
        int(name[len(SHARE) :]): value
        for name, value in logged.items()
        if name.startswith(SHARE) and name[len(SHARE) :].isdecimal()
    }
    return shares or counted(run, "taken")


def counted(run: Run, name: str) -> Shares:
    """Counts by exit as shares; empty if there are none."""
    counts = run.about.get(name)
    if not isinstance(counts, Mapping) or not all(d.isdecimal() and type(n) is int for d, n in counts.items()):
        return {}
    total = sum(counts.values())
    return {int(depth): number / total for depth, number in counts.items()} if total else {}


def together(many: Sequence[Shares]) -> Shares:
    """The mean over seeds of equal exits."""
    if not many or any(one.keys() != many[0].keys() for one in many):
        return {}
    return {depth: mean(one[depth] for one in many) for depth in many[0]}
