"""What a gate can be trained for: its loss, and how beta or a budget becomes the price of a layer when it runs.

Letters: N, B images, E exits.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.metrics.budget import Budget
from src.metrics.exit_choice import best_exit, best_price, beta_for_budget, utility

Loss = Callable[[Tensor, Tensor, Sequence[int], float, float], Tensor]


def exit_loss(scores: Tensor, quality: Tensor, exits: Sequence[int], beta: float, temperature: float) -> Tensor:
    """Cross-entropy with the exit of greatest utility, as in ECO-M2F."""
    return F.cross_entropy(scores, best_exit(quality, exits, beta))


def soft_loss(scores: Tensor, quality: Tensor, exits: Sequence[int], beta: float, temperature: float) -> Tensor:
    """Cross-entropy with a softmax over the utilities of all exits."""
    return F.cross_entropy(scores, (utility(quality, exits, beta) / temperature).softmax(1).to(scores.dtype))


def quality_loss(scores: Tensor, quality: Tensor, exits: Sequence[int], beta: float, temperature: float) -> Tensor:
    """Mean squared error of centred qualities: each exit's quality minus the image's mean over exits.

    The mean says how hard an image is. It varies far more than the differences and does not help to choose an exit.
    """
    return F.mse_loss(scores - scores.mean(1, keepdim=True), quality - quality.mean(1, keepdim=True))


def gain_loss(scores: Tensor, quality: Tensor, exits: Sequence[int], beta: float, temperature: float) -> Tensor:
    """Minus the gain expected from going on past each exit, mean over images and pairs of neighbouring exits.

    The gate goes on with probability sigmoid(s_{k+1} - s_k), so a miss weighs what it costs. The qualities are in the
    unit of `centred_gains`. After DynamicDet (CVPR 2023), which has two exits and centres the difference of their
    losses by its median.
    """
    return -(scores.diff(dim=1).sigmoid() * quality.diff(dim=1)).mean()


class Unit(NamedTuple):
    """Qualities enter the loss as (q - centre) / scale."""

    centre: list[float]  # (E,)
    scale: float


def as_it_is(quality: Tensor, centre: str) -> Unit:
    """The unit of qualities (N, E) themselves."""
    return Unit([0.0] * quality.shape[1], 1.0)


CENTRES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda gain: gain.mean(0),
    "median": lambda gain: gain.median(0).values,
}


def centred_gains(quality: Tensor, centre: str) -> Unit:
    """The unit in which the centre of the gains from each exit to the next is 0, and 1 the mean distance from it.

    Centred by the mean, a gate earns nothing from preferring the exit that is best on average and has to rank images.
    By the median, half of the images are to go on; where most gain nothing, or all they can, one side of it is empty.
    """
    gain = quality.double().diff(dim=1)  # (N, E - 1)
    if not gain.numel():
        raise ValueError(f"task.target=gain: {quality.shape[1]} exit in the table, expected two or more")
    middle = CENTRES[centre](gain)
    return Unit([0.0, *middle.cumsum(0).tolist()], max(float((gain - middle).abs().mean()), 1e-6))


class Lines(NamedTuple):
    """Gains in quality as lines of the scores: slope (s_{k+1} - s_k) + offset for each pair of neighbouring exits."""

    slope: list[float]  # (E - 1,)
    offset: list[float]

    def matrix(self) -> tuple[Tensor, Tensor]:
        """A (E, E) and b (E,) such that A s + b are scores with these gains; scores of slope 1 and offset 0 stay."""
        slope, offset = torch.tensor(self.slope), torch.tensor(self.offset)
        count = len(slope) + 1
        ends = torch.diag(torch.cat([torch.ones(1), slope]))  # of the last pair below each exit
        starts = torch.cat([1 - slope[:1], slope[:-1] - slope[1:]]) if len(slope) else slope
        below = torch.ones(count, count - 1).tril(-1) * starts
        return ends + F.pad(below, (0, 1)), F.pad(offset.cumsum(0), (1, 0))


Scored = Iterable[tuple[Tensor, Tensor]]  # scores and qualities, (B, E) each, of the training rows batch by batch


def as_they_are(batches: Scored, num_exits: int) -> Lines:
    """Scores that are compared as they are; the batches are not read."""
    return Lines([1.0] * (num_exits - 1), [0.0] * (num_exits - 1))


def least_squares(batches: Scored, num_exits: int) -> Lines:
    """The lines nearest to the gains, none of which falls. Scores only rank images; so they predict quality."""
    score, gain = (torch.cat(parts).double().diff(dim=1) for parts in zip(*batches, strict=True))  # (N, E - 1)
    middle, mean = score.mean(0), gain.mean(0)
    spread = ((score - middle) ** 2).mean(0).clamp(min=1e-12)
    slope = (((score - middle) * (gain - mean)).mean(0) / spread).clamp(min=0)
    return Lines(slope.tolist(), (mean - slope * middle).tolist())


class Price(NamedTuple):
    """What a layer costs."""

    of_quality: float  # beta
    of_score: float  # subtracted from the scores for each layer when the gate runs


class Rows(NamedTuple):
    """Held-out images with the scores that a gate gives them, (N, E) each."""

    scores: Tensor
    quality: Tensor
    cost: Tensor


def in_labels(rows: Rows, exits: Sequence[int], beta: float, budget: Budget | None) -> Price:
    """The price of a gate whose labels contain beta: when it runs, its scores are compared as they are."""
    return Price(beta, 0.0)


def of_predicted(rows: Rows, exits: Sequence[int], beta: float, budget: Budget | None) -> Price:
    """The price of a gate that predicts quality: beta, or what meets the budget by the qualities that it predicts."""
    found = beta if budget is None else beta_for_budget(rows.scores, rows.cost, exits, budget)
    return Price(found, found)


def of_ranked(rows: Rows, exits: Sequence[int], beta: float, budget: Budget | None) -> Price:
    """The price of a gate that ranks images: that of the greatest mean utility on these rows, or that of the budget."""
    if budget is None:
        return Price(beta, best_price(rows.scores, rows.quality, exits, beta))
    return Price(beta, beta_for_budget(rows.scores, rows.cost, exits, budget, least=-math.inf))


class Target(NamedTuple):
    """The training target of a gate."""

    loss: Loss
    beta_when_run: float  # multiplier on beta at inference: 0 if the labels contain beta already
    price: Callable[[Rows, Sequence[int], float, Budget | None], Price] = in_labels
    unit: Callable[[Tensor, str], Unit] = as_it_is  # from the qualities of the training rows and `task.centre`
    lines: Callable[[Scored, int], Lines] = as_they_are
    kept: tuple[str, ...] = ("scores", "cost")  # of the holdout, from which another price is found without the table


TARGETS = {
    "exit": Target(exit_loss, 0.0),
    "soft": Target(soft_loss, 0.0),
    "quality": Target(quality_loss, 1.0, of_predicted),
    "gain": Target(gain_loss, 1.0, of_ranked, centred_gains, least_squares, ("scores", "cost", "quality")),
}
