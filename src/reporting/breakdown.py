"""Scores by class and by size of objects: which of them need depth."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from src.reporting import markup, seeds
from src.reporting.markup import details
from src.reporting.points import KINDS, Panel, Point
from src.reporting.runs import Run

CELLS = 20_000  # of all tables of a page: more would make a browser slow
FORM = ".2f"  # per cents
BY_CLASS = {"miou": "iou"}  # the score of a class, if it is not called as its mean over classes
SIZES = {"": "all", "_small": "small, below 32²", "_medium": "medium", "_large": "large, above 96²"}
BY_SIZE = {"ap": "{}", "box_ap": "boxes: {}"}  # scores that are split so, and titles of their rows


class Row(NamedTuple):
    """A row of a table: a score of one class, or of all together."""

    title: str
    score: str
    of_class: str | None = None

    def value(self, run: Run, policy: str) -> float | None:
        scores = run.scores[policy] if self.of_class is None else run.classes.get(policy, {}).get(self.of_class, {})
        return scores.get(self.score)

    def values(self, point: Point) -> list[float]:
        """Return the score of each seed that has it."""
        return [value for run in point.runs if (value := self.value(run, point.policy)) is not None]

    def gains(self, points: Sequence[Point]) -> list[float]:
        """Return the gain of the deepest exit over the shallowest, for each seed that has both."""
        exits = [point for point in points if point.kind == "exit"]
        if len(exits) < 2:
            return []
        first, last = exits[0], exits[-1]
        common = [run for run in last.runs if any(run is other for other in first.runs)]
        pairs = [(self.value(run, first.policy), self.value(run, last.policy)) for run in common]
        return [after - before for before, after in pairs if before is not None and after is not None]


def breakdowns(panels: Sequence[Panel]) -> list[str]:
    """Return tables by size and by class for each panel, as many as fit into `CELLS`."""
    left, found = CELLS, []
    for panel in panels:
        lines = lines_of(panel)
        by_size = {label: sizes_of(points) for label, points in lines.items()}
        by_class = {label: classes_of(points, panel.quality) for label, points in lines.items()}
        by_class_title = f"By class, {panel.quality.upper()}, what gains most by depth first"
        html = ""
        for title, rows in (("By size of objects in pixels, AP", by_size), (by_class_title, by_class)):
            shown, left = tables(lines, rows, left)
            html += details(title, shown) if shown else ""
        found.append(html)
    return found


def tables(lines: Mapping[str, Sequence[Point]], rows: Mapping[str, Sequence[Row]], left: int) -> tuple[str, int]:
    """Return a table for each series as long as cells are left, and the number of cells that are left then."""
    html, more = "", 0
    for label, points in lines.items():
        size = len(rows[label]) * (len(points) + 2)
        if size > left:
            more += 1
        elif size:
            html += f"<h3>{escape(label)}</h3>{table(points, rows[label])}"
            left -= size
    if more:
        html += f'<p class="soft">{more} more in classes.csv and table.csv.</p>'
    return html, left


def lines_of(panel: Panel) -> dict[str, list[Point]]:
    """Return exits, shallowest first, and then gates by beta, for each series."""
    found: dict[str, list[Point]] = {}
    for point in panel.points:
        if point.kind in ("exit", "gate"):
            found.setdefault(point.series, []).append(point)
    return {label: sorted(points, key=place_of) for label, points in found.items()}


def place_of(point: Point) -> tuple[bool, float]:
    if point.kind == "exit":
        return False, int(point.depth)
    return True, -1.0 if point.beta is None else point.beta


def sizes_of(points: Sequence[Point]) -> list[Row]:
    """Return rows of AP of all objects and by size; empty without any size."""
    found = []
    for score, form in BY_SIZE.items():
        rows = [Row(form.format(title), f"{score}{size}") for size, title in SIZES.items()]
        known = [row for row in rows if any(math.isfinite(value) for point in points for value in row.values(point))]
        found += known if len(known) > 1 else []
    return found


def classes_of(points: Sequence[Point], quality: str) -> list[Row]:
    """Return rows of the mean over classes and of each class, the largest gain first; empty without classes."""
    score = BY_CLASS.get(quality, quality)
    classes = [run.classes.get(point.policy, {}) for point in points for run in point.runs]
    names = dict.fromkeys(name for scores in classes for name, row in scores.items() if score in row)
    rows = [Row(name, score, of_class=name) for name in names]
    gains = {row: seeds.mean(row.gains(points)) for row in rows}
    rows.sort(key=lambda row: math.inf if math.isnan(gains[row]) else -gains[row])
    return [Row("mean over classes", quality), *rows] if rows else []


def table(points: Sequence[Point], rows: Sequence[Row]) -> str:
    """Return a table with a column for each exit and gate, and for the gain of the deepest exit over the shallowest."""
    depths = [point.depth for point in points if point.kind == "exit"]
    header = ["", *map(heading, points)]
    if len(depths) > 1:
        header.append(f"{depths[-1]} − {depths[0]}")
    body = ""
    for row in rows:
        cells = [escape(row.title), *(seeds.spell(row.values(point), FORM) for point in points)]
        if len(depths) > 1:
            cells.append(seeds.spell(row.gains(points), f"+{FORM}"))
        body += markup.row(cells)
    return markup.table(header, f"<tbody>{body}</tbody>", css_class="even")


def heading(point: Point) -> str:
    if point.kind == "exit":
        return f"exit {point.depth}"
    return KINDS[point.kind] if point.beta is None else f"{KINDS[point.kind]}, beta {point.beta:g}"
