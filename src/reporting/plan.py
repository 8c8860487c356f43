"""What to deploy: every exit and gate that runs have scored, which of them keep to a budget, and the best of these."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.records.scores import SCORES_FILE, pareto_front
from src.reporting.latency import precision_of
from src.reporting.points import ATTAINABLE, measure, panels
from src.reporting.runs import Run

RESIZE = ("data.resize", "task.postprocess")  # settings of an evaluation that an export of a checkpoint keeps
NOT_EXPORTED = (  # settings of an evaluation of other weights that an export does not keep
    *("ckpt_path", "gate", "beta", "budget", "latency", "exits", "callbacks", "logger", "trainer", "paths", "hydra"),
    *("name", "check_classes", "seed", "batch_size", "data.eval_batch_size", "data.num_workers"),
)


class Budget(NamedTuple):
    """A mean cost of an image to keep to."""

    setting: str  # budget_ms or budget_gflops
    limit: float


class Candidate(NamedTuple):
    """A policy of a run, which could be deployed."""

    run: Run
    policy: str
    quality: float
    gflops: float
    ms: float | None  # None: not measured on the machine

    @property
    def beta(self) -> float | None:
        beta = self.run.settings.values.get("beta") or self.run.scores[self.policy].get("beta")
        return float(beta) if self.policy == "gate" and beta is not None else None

    @property
    def depth(self) -> str:
        """The depth of a fixed exit."""
        return self.policy.removeprefix("exit")

    @property
    def left_at(self) -> str:
        """Where images leave, in words."""
        if self.policy != "gate":
            return f"exit {self.depth}"
        return "gate" if self.beta is None else f"gate, beta {self.beta:g}"

    @property
    def runs_in(self) -> str:
        """What runs it, and in which precision; only the former where torch chose the precision itself."""
        values = self.run.settings.values
        return ", ".join(filter(None, ("onnxruntime" if values.get("export") else "torch", precision_of(values))))

    @property
    def schedule(self) -> str:
        schedule = self.run.settings.resolved("schedule")
        return " ".join(map(str, schedule)) if isinstance(schedule, list) else ""

    @property
    def size(self) -> str:
        """The sides of an image as the model sees it: short, and at most long."""
        short, long = (self.run.settings.resolved(f"data.resize.{side}") for side in ("short", "long"))
        return f"{short}, to {long}" if short is not None else ""

    def cost(self, setting: str) -> float | None:
        """Return the cost in the unit of a budget."""
        return self.ms if setting == "budget_ms" else self.gflops


def candidates(runs: Sequence[Run], machine: str | None) -> tuple[str, list[Candidate]]:
    """Return the name of the quality, and all exits and gates with their times on a machine.

    Raises ValueError for runs that cannot be compared, as they are scored on other images or by another measure.
    """
    scored = [run for run in runs if run.source == SCORES_FILE]
    if not scored:
        raise ValueError("no scores.json in these folders; expected runs of src.train or src.evaluate")
    groups = dict.fromkeys((run.settings.data_set(), measure(run)[1]) for run in scored)
    if len(groups) > 1:
        said = "; ".join(f"{title} ({quality})" for title, quality in groups)
        raise ValueError(f"runs are scored on different images or by different measures, expected the same: {said}")
    found = [
        Candidate(
            run, point.policy, row[point.quality], row[run.cost], run.times.get(machine or "", {}).get(point.policy)
        )
        for panel in panels(scored)
        for point in panel.points
        for run in point.runs
        if point.kind in ATTAINABLE and point.drawn
        for row in [run.scores[point.policy]]
    ]
    (quality,) = {quality for _, quality in groups}
    return quality, found


def machine_of(runs: Iterable[Run], asked: str | None) -> str | None:
    """Return the machine whose times count: the one asked for, by a part of its name, or the only one there is.

    None if nothing was measured. Raises ValueError if several or none remain.
    """
    tables = dict.fromkeys(name for run in runs for name in run.measured)
    names = tables or dict.fromkeys(name for run in runs for name in run.times)
    matching = [name for name in names if asked is None or asked in name]
    if asked is not None and not matching:
        raise ValueError(f"machine={asked}: no times of it; there are: {'; '.join(names) or 'none'}")
    if len(matching) > 1:
        raise ValueError(f"times of several machines: {'; '.join(matching)}; expected machine=NAME or a part of it")
    return matching[0] if matching else None


def front(found: Sequence[Candidate], setting: str) -> list[Candidate]:
    """Return the candidates that none beats: nothing as cheap is better, in the unit of a budget."""
    priced = [(one, cost) for one in found if (cost := one.cost(setting)) is not None]
    best = pareto_front([(cost, one.quality) for one, cost in priced])
    return [one for (one, _), on in zip(priced, best, strict=True) if on]


def choose(found: Sequence[Candidate], budget: Budget) -> Candidate:
    """Return the best candidate within a budget, the cheapest of equals.

    Raises ValueError if there is none, with what the cheapest costs.
    """
    priced = [(cost, one) for one in found if (cost := one.cost(budget.setting)) is not None]
    if not priced:
        raise ValueError(
            f"{budget.setting}={budget.limit:g}: none of these runs was timed; python -m src.measure ckpt_path=FILE "
            "times every exit of a checkpoint"
        )
    within = [(one.quality, -cost, place) for place, (cost, one) in enumerate(priced) if cost <= budget.limit]
    if not within:
        cost, one = min(priced, key=lambda pair: pair[0])
        raise ValueError(
            f"{budget.setting}={budget.limit:g}: the cheapest costs {cost:.6g} ({one.left_at} of {one.run.folder}); "
            "expected that or more"
        )
    return priced[max(within)[2]][1]


def command(one: Candidate, budget: Budget) -> str:
    """Return the command line that exports a candidate, or that runs it if it is an export."""
    values, given = one.run.settings.values, one.run.settings.overrides
    if exported := values.get("export"):
        choice = (
            f"--{budget.setting.replace('_', '-')}={budget.limit:g}" if one.policy == "gate" else f"--exit={one.depth}"
        )
        return shlex.join(["python", f"{exported}/runtime.py", "photos", choice])
    if scored := values.get("ckpt_path"):
        words = [f"ckpt_path={scored}", *(override for override in given if override.lstrip("+").startswith(RESIZE))]
    elif trained := checkpoint_in(one.run.folder):
        words = [f"ckpt_path={trained}"]
    else:
        words = [override for override in given if not override.lstrip("+~").startswith(NOT_EXPORTED)]
    if one.policy == "gate":
        words += [f"gate={values.get('gate')}", f"{budget.setting}={budget.limit:g}"]
    else:
        words.append(f"exits=[{one.depth}]")
    return shlex.join(["python", "-m", "src.export", *words, "out=export"])


def checkpoint_in(folder: Path) -> Path | None:
    """Return the checkpoint of the scores of a training: its last one, or else its best one."""
    files = [folder / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")]
    return next((file for file in files if file.is_file()), None)


def rows(found: Sequence[Candidate], quality: str, budget: Budget, chosen: Candidate) -> list[dict[str, Any]]:
    """Return the candidates in order of cost, those without one last, as plain values."""
    best = {id(one) for one in front(found, budget.setting)}
    ordered = sorted(found, key=lambda one: ((cost := one.cost(budget.setting)) is None, cost or 0, -one.quality))
    return [
        {
            "run": str(one.run.folder),
            "schedule": one.schedule,
            "runs in": one.runs_in,
            "short, long side": one.size,
            "leaves at": one.left_at,
            quality: one.quality,
            "GFLOPs": one.gflops,
            "ms": one.ms,
            "Pareto": id(one) in best,
            "chosen": one is chosen,
        }
        for one in ordered
    ]
