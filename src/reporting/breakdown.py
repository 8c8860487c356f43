"""What exits come to by class and by size of things: which of them need depth."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from src.reporting import seeds
from src.reporting.points import KINDS, Panel, Point
from src.reporting.runs import Run

CELLS = 20_000  # of all tables of a page: a browser opens as many at once
FORM = ".2f"  # per cents
BY_CLASS = {"miou": "iou"}  # what a class has where its mean is called otherwise
SIZES = {"ap": "all", "ap_small": "small, below 32²", "ap_medium": "medium", "ap_large": "large, above 96²"}

Score = Callable[[Run, str], float | None]  # of a run, at an exit or as a gate chooses
Rows = Mapping[str, Score]


def breakdowns(panels: Sequence[Panel]) -> list[str]:
    """By size and by class for each panel; where a page would get too long, lines of the curve are left out."""
    left, found = CELLS, []
    for panel in panels:
        lines = lines_of(panel)
        sizes = {label: sizes_of(points) for label, points in lines.items()}
        classes = {label: classes_of(points, panel.quality) for label, points in lines.items()}
        parts = []
        for title, rows_by_line in (
            ("By size of things in pixels, AP", sizes),
            (f"By class, {panel.quality.upper()}, what gains most by depth first", classes),
        ):
            shown, left = tables(lines, rows_by_line, left)
            parts += [f"<details><summary>{title}</summary>{shown}</details>"] if shown else []
        found.append("".join(parts))
    return found


def tables(lines: Mapping[str, Sequence[Point]], rows: Mapping[str, Rows], left: int) -> tuple[str, int]:
    """A table for every line of a curve, as long as there are cells left, and how many are then."""
    shown, more = [], 0
    for label, points in lines.items():
        size = len(rows[label]) * (len(points) + 2)
        if rows[label] and size <= left:
            shown.append(f"<h3>{escape(label)}</h3>{table(points, rows[label])}")
            left -= size
        else:
            more += bool(rows[label])
    if more:
        shown.append(f'<p class="soft">{more} more in classes.csv and table.csv.</p>')
    return "".join(shown), left


def lines_of(panel: Panel) -> dict[str, list[Point]]:
    """Exits, shallowest first, and gates of every line."""
    found: dict[str, list[Point]] = {}
    for point in panel.points:
        if point.kind in ("exit", "gate"):
            found.setdefault(point.series, []).append(point)
    return {label: sorted(points, key=place_of) for label, points in found.items()}


def place_of(point: Point) -> tuple[bool, float]:
    if point.kind == "exit":
        return False, int(point.who.removeprefix("exit"))
    return True, -1.0 if point.beta is None else point.beta


def sizes_of(points: Sequence[Point]) -> Rows:
    """AP of all things and by size, if there is any."""
    found = {said: plain(name) for name, said in SIZES.items() if any(map(math.isfinite, all_values(points, name)))}
    return found if len(found) > 1 else {}


def classes_of(points: Sequence[Point], quality: str) -> Rows:
    """The score that counts: its mean, then that of each class, what gains most by depth first."""
    name = BY_CLASS.get(quality, quality)
    runs = [(run, point.who) for point in points for run in point.runs]
    names = list(
        dict.fromkeys(one for run, who in runs for one, row in run.classes.get(who, {}).items() if name in row)
    )
    rows = {one: of_class(one, name) for one in names}
    gains = {one: seeds.mean(differences(points, score)) for one, score in rows.items()}
    order = sorted(rows, key=lambda one: math.inf if math.isnan(gains[one]) else -gains[one])
    return {"mean over classes": plain(quality), **{one: rows[one] for one in order}} if rows else {}


def plain(name: str) -> Score:
    """A score of all classes."""
    return lambda run, who: run.scores[who].get(name)


def of_class(one: str, name: str) -> Score:
    """A score of one class."""
    return lambda run, who: run.classes.get(who, {}).get(one, {}).get(name)


def all_values(points: Sequence[Point], name: str) -> Iterator[float]:
    return (value for point in points for value in point.values(name))


def values(point: Point, score: Score) -> list[float]:
    """A score of each seed that has it."""
    return [value for run in point.runs if (value := score(run, point.who)) is not None]


def differences(points: Sequence[Point], score: Score) -> list[float]:
    """What the last exit has more than the first, of each seed that has both."""
    exits = [point for point in points if point.kind == "exit"]
    if len(exits) < 2:
        return []
    first, last = exits[0], exits[-1]
    both = [(score(run, first.who), score(run, last.who)) for run in last.runs if any(run is one for one in first.runs)]
    return [after - before for before, after in both if before is not None and after is not None]


def table(points: Sequence[Point], rows: Rows) -> str:
    """A row for each name, a column for each exit or gate, and the difference of the last exit and the first."""
    exits = [point.who.removeprefix("exit") for point in points if point.kind == "exit"]
    gained = exits[1:]
    names = [*map(heading, points), *(f"{depth} − {exits[0]}" for depth in gained[-1:])]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *names))
    body = []
    for name, score in rows.items():
        cells = [seeds.spell(values(point, score), FORM) for point in points]
        cells += [seeds.spell(differences(points, score), f"+{FORM}")] if gained else []
        body.append(f"<tr><td>{escape(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return (
        f'<div class="wide"><table class="even"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def heading(point: Point) -> str:
    """What a column is of."""
    if point.kind == "exit":
        return f"exit {point.who.removeprefix('exit')}"
    return KINDS[point.kind] if point.beta is None else f"{KINDS[point.kind]}, beta {point.beta:g}"
