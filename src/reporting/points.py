"""Points of the trade-off: quality and cost of policies, with runs that differ in their seed only taken together."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from src.records.scores import GATE_FILE, SCORES_FILE, pareto_front, quality_of
from src.reporting import seeds
from src.reporting.run_settings import DIALS, identity, images_of, labels
from src.reporting.runs import LATENCY, Run

KINDS = {  # of points, as a report calls them
    "exit": "fixed exits",
    "gate": "gate",
    "oracle": "oracle",
    "random": "random, same exit distribution",
}
ATTAINABLE = ("exit", "gate")  # kinds on the Pareto front; an oracle knows the truth


class Point(NamedTuple):
    """A policy, scored by one or several seeds."""

    series: str  # label of the points that a line joins
    policy: str  # exit2, gate, oracle, random
    beta: float | None
    runs: list[Run]  # one for each seed
    quality: str  # name of the score that is drawn
    cost: str

    @property
    def depth(self) -> str:
        """The depth of a fixed exit."""
        return self.policy.removeprefix("exit")

    @property
    def kind(self) -> str:
        return "exit" if self.policy.startswith("exit") else self.policy

    def values(self, name: str) -> list[float]:
        """Return a score of each seed that has it."""
        rows = [run.scores[self.policy] for run in self.runs]
        return [row[name] for row in rows if name in row]

    def mean(self, name: str) -> float:
        return seeds.mean(self.values(name))

    def deviation(self, name: str) -> float | None:
        """Return the sample standard deviation of a score, None with a single seed."""
        return seeds.deviation(self.values(name))

    def timed(self, device: str) -> "Point":
        """Return the point by its latency, with the seeds that were timed on a device."""
        runs = [run.timed(device) for run in self.runs if self.policy in run.times.get(device, {})]
        return self._replace(runs=runs, cost=LATENCY)

    def paces(self) -> list[float]:
        """Return the latency of each seed as a share of that of the deepest exit in the same run."""
        return [run.scores[self.policy][LATENCY] / slowest for run in self.runs if (slowest := run.latency_of_deepest)]

    @property
    def at(self) -> tuple[float, float]:
        """Cost and quality, means over seeds."""
        return self.mean(self.cost), self.mean(self.quality)

    @property
    def drawn(self) -> bool:
        return all(map(math.isfinite, self.at))


class Line(NamedTuple):
    """Identity of a line of the curve."""

    shared: bool  # by all gates of the same exit table, as the oracle is
    settings: str  # that its points have in common


class Panel(NamedTuple):
    """Points that can be compared: of the same images and the same measure."""

    title: str
    quality: str
    points: list[Point]
    data_set: str
    labels: list[str]  # of all series, also of those without a point here

    @property
    def cost(self) -> str:
        return self.points[0].cost

    def timed(self) -> dict[str, "Panel"]:
        """Return a panel of quality against latency for each device: latencies of two devices cannot be compared."""
        found: dict[str, Panel] = {}
        for device in dict.fromkeys(name for point in self.points for run in point.runs for name in run.times):
            if timed := [there for point in self.points if (there := point.timed(device)).runs]:
                found[device] = self._replace(title=f"{self.title}, latency on {device}", points=timed)
        return found

    @property
    def series(self) -> dict[tuple[str, str], list[Point]]:
        """Points by label and kind, each the line of a curve, in order of cost."""
        lines: dict[tuple[str, str], list[Point]] = {}
        for point in self.points:
            lines.setdefault((point.series, point.kind), []).append(point)
        return {key: sorted(points, key=lambda point: point.at) for key, points in lines.items()}

    def front(self) -> list[Point]:
        """Return the Pareto front of exits and gates in order of cost."""
        ours = [point for point in self.points if point.kind in ATTAINABLE and point.drawn]
        best = pareto_front([point.at for point in ours])
        return sorted((point for point, on in zip(ours, best, strict=True) if on), key=lambda point: point.at)


def panels(runs: Sequence[Run]) -> list[Panel]:
    """Return a panel for each data set and measure."""
    found: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.source, *measure(run)), []).append(run)
    some = []
    for (_, title, quality), same in found.items():
        points = points_of(same, quality)
        series = dict.fromkeys(point.series for point in points)
        some.append(Panel(title, quality, points, same[0].settings.data_set(), list(series)))
    return some


def measure(run: Run) -> tuple[str, str]:
    """Return a description of the images that a run is scored on, and the name of its main score."""
    if run.source == GATE_FILE:
        held = run.content.get("num_holdout", "the")  # it also tells tables of unknown images apart
        images = run.content.get("images")
        known = images_of(images, images.get("segmentation")) if isinstance(images, Mapping) else ""
        kind = ", quality: minus the loss" if run.content.get("quality") == "loss" else ""
        return f"Gates on {held} images held out of {known or f'their table: {run.settings.name}'}{kind}", "quality"
    quality = str(quality_of(run.scores.values()))  # runs without one are not read
    size = run.content.get("image_size") if run.cost == "total_gflops" else None
    sized = f", costs at {'x'.join(map(str, size))}" if isinstance(size, list) else ""
    return f"{run.settings.data_set()}{sized}", quality


def points_of(runs: Sequence[Run], quality: str) -> list[Point]:
    """Return the points of runs that can be compared; a policy that was only timed is no point."""
    scored = [(run, policy) for run in runs for policy, row in run.scores.items() if quality in row]
    lines = {line_of(run, policy): run.settings for run, policy in scored}
    own = labels({line: settings for line, settings in lines.items() if not line.shared})
    common = labels({line: settings for line, settings in lines.items() if line.shared}, data_only=True)
    names = own | common
    groups: dict[tuple[str, str, float | None, str], list[Run]] = {}
    for run, policy in scored:
        label = names[line_of(run, policy)]
        beta = None if policy.startswith("exit") else beta_of(run, policy)
        step = str(run.content.get("step")) if run.source == SCORES_FILE else ""
        groups.setdefault((label, policy, beta, step), []).append(run)
    cost = runs[0].cost
    return [
        Point(label, policy, beta, one_per_seed(same), quality, cost)
        for (label, policy, beta, _), same in groups.items()
    ]


def line_of(run: Run, policy: str) -> Line:
    shared = run.source == GATE_FILE and policy not in ("gate", "random")
    return Line(shared, identity(run.settings.of_data() if shared else run.settings.without_seed(*DIALS)))


def beta_of(run: Run, policy: str) -> float | None:
    """Return the beta that a policy was run with, None if there was no single one."""
    beta = run.scores[policy].get("beta", run.content.get("beta"))
    if run.source == SCORES_FILE:  # it has 0 for a gate that learnt a fixed beta
        beta = run.settings.values.get("beta") or beta
    return float(beta) if isinstance(beta, int | float) else None


def one_per_seed(runs: Sequence[Run]) -> list[Run]:
    """Return the newest run of every seed."""
    newest = {identity(run.settings.seed): run for run in sorted(runs, key=lambda run: run.age)}
    return [newest[seed] for seed in sorted(newest)]


def superseded(runs: Sequence[Run], some: Sequence[Panel]) -> list[Run]:
    """Return runs whose gate, or whose exits, are in no panel because a newer run has the same settings and seed."""
    used = {(id(run), point.kind) for panel in some for point in panel.points for run in point.runs}
    return [run for run in runs if (id(run), "gate" if "gate" in run.scores else "exit") not in used]
