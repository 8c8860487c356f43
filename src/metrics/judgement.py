"""What a gate earns beyond fixed exits, beyond chance and of what can be earned, each with its interval.

Letters: N images, E exits of the table, G exits of the gate, R weightings of the images.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.metrics.bootstrap import Estimate, estimate, resamples
from src.metrics.exit_choice import best_exit, utility
from src.metrics.noise_ceiling import ceiling, cross_lead
from src.metrics.routing import Outcomes, chosen, corners, deeper_is_better, fixed, hull, shares
from src.metrics.verdict import Verdict, verdict_of

FEWEST = 30  # images; intervals of fewer mean nothing
DOUBTFUL = 0.2  # efficacy is unknown if its denominator may be below this share of its value,
TINY = 0.1  # or below this share of what would be worth a gate

Policies = dict[str, dict[str, Estimate]]  # quality, utility and gflops of exit2, gate, random, oracle, ceiling


class Rows(NamedTuple):
    """Images that no gate was trained on."""

    quality: Tensor  # (N, E)
    cost: Tensor  # (N, E) GFLOPs
    depths: Sequence[int]
    again: Tensor | None = None  # (N, E) a second measurement of the qualities


class Route(NamedTuple):
    """What a gate does with the images."""

    choice: Tensor  # (N,) columns of the table's exits
    scores: Tensor  # (N, G)
    columns: Sequence[int]  # of its exits in the table


class Trial(NamedTuple):
    """How an answer is found: the beta, and what counts as an answer."""

    beta: float
    worth: float = 0.002  # least lead in utility that would be worth a gate
    resamples: int = 2000
    seed: int = 0
    block: int = 1  # neighbouring images that a resample draws together


class Judgement(NamedTuple):
    """The answer for one gate, or for a table without one, at one beta."""

    beta: float
    num_images: int
    best_exit: int  # depth of the fixed exit of greatest utility
    policies: Policies
    figures: dict[str, Estimate]  # leads and headroom in utility, lead_over_hull in quality; efficacy, auroc if known
    taken: dict[int, float]  # share of images by depth; empty without a gate
    corners: list[int]  # depths on the upper hull of the fixed exits
    verdict: Verdict


def judge(rows: Rows, trial: Trial, route: Route | None = None) -> Judgement:
    """Judge a gate, or without one what a gate could earn on these images."""
    best = int(utility(rows.quality, rows.depths, trial.beta).mean(0).argmax())
    weightings = resamples(len(rows.quality), trial.resamples, trial.seed, trial.block)
    policies, figures = joined(measure(rows, weights, trial.beta, best, route) for weights in weightings)
    estimates = {name: estimate(values) for name, values in figures.items() if not values[0].isnan()}
    if "efficacy" in estimates and not solid(estimates["headroom_over_chance"], trial.worth):
        del estimates["efficacy"]
    count = len(rows.depths)
    of_exits = [policies[f"exit{depth}"] for depth in rows.depths]
    on_hull = corners(*(torch.stack([getattr(one, name)[0] for one in of_exits]) for name in ("gflops", "quality")))
    taken = {}
    if route is not None:
        share = torch.bincount(route.choice, minlength=count).double() / len(route.choice)
        taken = dict(zip(rows.depths, share.tolist(), strict=True))
    return Judgement(
        trial.beta,
        len(rows.quality),
        rows.depths[best],
        {name: {score: estimate(v) for score, v in one._asdict().items()} for name, one in policies.items()},
        estimates,
        taken,
        [rows.depths[exit_] for exit_ in on_hull],
        verdict_of(estimates, rows.depths[best], len(rows.quality), trial.worth),
    )


def solid(headroom: Estimate, worth: float) -> bool:
    """Whether something may be divided by it: its interval stays well away from 0."""
    return headroom.low > max(DOUBTFUL * headroom.value, TINY * worth)


def measure(
    rows: Rows, weights: Tensor, beta: float, best: int, route: Route | None
) -> tuple[dict[str, Outcomes], dict[str, Tensor]]:
    """Return the results of all policies, and leads, (R,) each, under some weightings (R, N)."""
    about = (rows.quality, rows.cost, rows.depths, beta)
    every = fixed(weights, *about)
    oracle = best_exit(rows.quality, rows.depths, beta)
    policies = {f"exit{depth}": every.at(place) for place, depth in enumerate(rows.depths)}
    policies["oracle"] = chosen(weights, oracle, *about)
    figures = {"oracle_lead": policies["oracle"].utility - every.utility[:, best]}
    if route is not None:
        gate = policies["gate"] = chosen(weights, route.choice, *about)
        chance = policies["random"] = every.mixed(shares(weights, route.choice, len(rows.depths)))
        figures["lead"] = gate.utility - every.utility[:, best]
        figures["lead_over_chance"] = gate.utility - chance.utility
        figures["lead_over_hull"] = gate.quality - hull(every.gflops, every.quality, gate.gflops)
        depths = [rows.depths[column] for column in route.columns]
        figures["auroc"] = deeper_is_better(weights, route.scores, rows.quality[:, route.columns], depths, beta)
    if rows.again is not None:
        top = ceiling(weights, rows.quality, rows.again, *about[1:])
        policies["ceiling"] = top.outcomes
        figures["headroom"], figures["headroom_over_chance"] = top.over_best, top.over_chance
        figures["cross_lead"] = cross_lead(weights, rows.quality, rows.again, *about[1:])
        if route is not None:
            figures["efficacy"] = figures["lead_over_chance"] / top.over_chance
    return policies, figures


def joined(
    parts: Iterator[tuple[dict[str, Outcomes], dict[str, Tensor]]],
) -> tuple[dict[str, Outcomes], dict[str, Tensor]]:
    """Join what `measure` found chunk by chunk."""
    outcomes, figures = zip(*parts, strict=True)
    by_policy = {
        name: Outcomes(*map(torch.cat, zip(*(part[name] for part in outcomes), strict=True))) for name in outcomes[0]
    }
    return by_policy, {name: torch.cat([part[name] for part in figures]) for name in figures[0]}


def plain(judgement: Judgement) -> Mapping[str, object]:
    """Return a judgement as plain values, for JSON; an interval is [value, low, high]."""
    return {**judgement._asdict(), "verdict": judgement.verdict._asdict()}
