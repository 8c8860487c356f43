"""Points of the trade-off: what choices of exits come to, runs that differ in their seed only taken together."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from src.records.scores import pareto_front, quality_of
from src.reporting import seeds
from src.reporting.run_settings import DIALS, identity, images_of, labels
from src.reporting.runs import LATENCY, Run

KINDS = {  # what a point is, as one says it
    "exit": "fixed exits",
    "gate": "gate",
    "oracle": "oracle",
    "random": "as many at each exit, by lot",
    "published": "published",
}
ATTAINABLE = ("exit", "gate")  # of which the front is made; an oracle knows the truth


class Point(NamedTuple):
    """A choice of exits, by one or several seeds."""

    series: str  # what a line joins
    kind: str
    who: str  # exit2, gate, oracle, random
    beta: float | None
    runs: list[Run]  # one for each seed
    quality: str  # the name of what is on the curve
    cost: str

    def values(self, name: str) -> list[float]:
        """A score of each seed."""
        return [run.scores[self.who][name] for run in self.runs if name in run.scores[self.who]]

    def mean(self, name: str) -> float:
        return seeds.mean(self.values(name))

    def deviation(self, name: str) -> float | None:
        """The standard deviation of a sample; None of a single seed."""
        return seeds.deviation(self.values(name))

    def timed(self, device: str) -> "Point":
        """The same by its latency, of the seeds that were timed on a class of machine."""
        runs = [run for run in self.runs if run.device == device and LATENCY in run.scores[self.who]]
        return self._replace(runs=runs, cost=LATENCY)

    def paces(self) -> list[float]:
        """The latency of each seed as a share of that of the deepest exit in the same run."""
        return [run.scores[self.who][LATENCY] / slowest for run in self.runs if (slowest := run.latency_of_deepest)]

    @property
    def at(self) -> tuple[float, float]:
        """Cost and quality, means over seeds."""
        return self.mean(self.cost), self.mean(self.quality)

    @property
    def drawn(self) -> bool:
        return all(map(math.isfinite, self.at))


class Panel(NamedTuple):
    """Points that may be compared: of the same images and the same measure."""

    title: str
    quality: str
    points: list[Point]
    data_set: str
    labels: list[str]  # of all series, those among them that have no point here

    @property
    def cost(self) -> str:
        """What quality is drawn against."""
        return self.points[0].cost

    def timed(self) -> dict[str, "Panel"]:
        """Quality against latency, by the class of machine it was measured on: no two are compared."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            for device in dict.fromkeys(run.device for run in point.runs if LATENCY in run.scores[point.who]):
                found.setdefault(device, []).append(point.timed(device))
        return {
            device: self._replace(title=f"{self.title}, latency on {device}", points=points)
            for device, points in found.items()
        }

    @property
    def series(self) -> dict[tuple[str, str], list[Point]]:
        """Points by label and kind, in order of their cost, each the line of a curve."""
        lines: dict[tuple[str, str], list[Point]] = {}
        for point in self.points:
            lines.setdefault((point.series, point.kind), []).append(point)
        return {key: sorted(points, key=lambda point: point.at) for key, points in lines.items()}

    def front(self) -> list[Point]:
        """Points of exits and gates that no other beats in quality at its cost or less, in order of their cost."""
        ours = [point for point in self.points if point.kind in ATTAINABLE and point.drawn]
        best = pareto_front([point.at for point in ours])
        return sorted((point for point, on in zip(ours, best, strict=True) if on), key=lambda point: point.at)


def panels(runs: Sequence[Run]) -> list[Panel]:
    """All that was scored, by data set and measure."""
    found: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.source, *measure(run)), []).append(run)
    return [panel(title, quality, same) for (_, title, quality), same in found.items()]


def panel(title: str, quality: str, runs: Sequence[Run]) -> Panel:
    """The points of runs that may be compared."""
    points = list(points_of(runs, quality))
    return Panel(title, quality, points, runs[0].settings.data_set(), list(dict.fromkeys(p.series for p in points)))


def measure(run: Run) -> tuple[str, str]:
    """What a run is scored on, and the score that counts."""
    if run.source == "gate.json":
        held = run.about.get("num_holdout", "the")  # tables of other images are told apart by it, if by nothing else
        images = run.about.get("images")
        known = images_of(images, images.get("segmentation")) if isinstance(images, Mapping) else ""
        return f"Gates on {held} images held out of {known or f'their table: {run.settings.name}'}", "quality"
    quality = str(quality_of(run.scores.values()))  # a run without one is not read
    size = run.about.get("image_size") if run.cost == "total_gflops" else None
    sized = f", costs at {'x'.join(map(str, size))}" if isinstance(size, list) else ""
    return f"{run.settings.data_set()}{sized}", quality


def points_of(runs: Sequence[Run], quality: str) -> Iterator[Point]:
    """The points of runs that may be compared."""
    scored = [(run, who) for run in runs for who, row in run.scores.items() if quality in row]  # others are timed only
    lines = {line_of(run, who): run.settings for run, who in scored}
    own = labels({key: settings for (shared, key), settings in lines.items() if not shared})
    common = labels({key: settings for (shared, key), settings in lines.items() if shared}, data_only=True)
    groups: dict[tuple[str, str, float | None, str], list[Run]] = {}
    for run, who in scored:
        shared, line = line_of(run, who)
        beta = None if who.startswith("exit") else beta_of(run, who)
        step = "" if shared or run.source == "gate.json" else str(run.about.get("step"))
        groups.setdefault(((common if shared else own)[line], who, beta, step), []).append(run)
    cost = runs[0].cost
    for (label, who, beta, _), same in groups.items():
        kind = "exit" if who.startswith("exit") else who
        yield Point(label, kind, who, beta, one_per_seed(same), quality, cost)


def line_of(run: Run, who: str) -> tuple[bool, str]:
    """Which line a row belongs to, and whether gates that share images and exits share it."""
    shared = run.source == "gate.json" and who not in ("gate", "random")
    return shared, identity(run.settings.data() if shared else run.settings.but(*DIALS))


def beta_of(run: Run, who: str) -> float | None:
    """What a layer had to bring, if that was a number."""
    beta = run.scores[who].get("beta", run.about.get("beta"))
    if run.source == "scores.json":  # there 0 stands for what gates of a fixed beta still take off
        beta = run.settings.values.get("beta") or beta
    return float(beta) if isinstance(beta, int | float) else None


def one_per_seed(runs: Iterable[Run]) -> list[Run]:
    """The newest of every seed."""
    newest = {identity({"": run.settings.seed}): run for run in sorted(runs, key=lambda run: run.age)}
    return [newest[seed] for seed in sorted(newest)]


def superseded(runs: Sequence[Run], some: Sequence[Panel]) -> list[Run]:
    """Runs that no point of theirs is made of, because a newer one has the same settings and seed."""
    used = {id(run) for panel in some for point in panel.points if point.kind in ATTAINABLE for run in point.runs}
    own = {id(run) for panel in some for point in panel.points if point.kind == "gate" for run in point.runs}
    return [run for run in runs if id(run) not in (own if "gate" in run.scores else used)]
