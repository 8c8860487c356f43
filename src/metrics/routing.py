"""What a choice of exits earns beyond fixed exits and beyond chance, on many weightings of the images at once.

Letters: N images, E exits, R rows of weights (see `bootstrap`). Costs are GFLOPs.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.metrics.exit_choice import taken, utility


class Outcomes(NamedTuple):
    """Mean results of a policy under each weighting: (R,) each, (R, E) for all fixed exits together."""

    quality: Tensor
    utility: Tensor
    gflops: Tensor

    def at(self, exit_: int) -> "Outcomes":
        """Select one of the fixed exits, by its column."""
        return Outcomes(*(values[:, exit_] for values in self))

    def mixed(self, share: Tensor) -> "Outcomes":
        """Return the results of exits drawn at random with probability share (R, E): their exact expectation."""
        return Outcomes(*((share * values).sum(1) for values in self))


def fixed(weights: Tensor, quality: Tensor, cost: Tensor, depths: Sequence[int], beta: float) -> Outcomes:
    """Return the results (R, E) of every exit taken by all images."""
    return Outcomes(weights @ quality.double(), weights @ utility(quality, depths, beta), weights @ cost.double())


def chosen(
    weights: Tensor, choice: Tensor, quality: Tensor, cost: Tensor, depths: Sequence[int], beta: float
) -> Outcomes:
    """Return the results (R,) of a choice (N,) of columns."""
    values = torch.stack([quality.double(), utility(quality, depths, beta), cost.double()])  # (3, N, E)
    return Outcomes(*(weights @ values.gather(2, choice[None, :, None].expand(3, -1, 1))[..., 0].T).unbind(1))


def shares(weights: Tensor, choice: Tensor, num_exits: int) -> Tensor:
    """Return the share of images (R, E) that leave at each exit."""
    return weights @ taken(choice, num_exits).double()


def hull(cost: Tensor, quality: Tensor, at: Tensor) -> Tensor:
    """Return the best quality (R,) that fixed exits (R, E), mixed at random, reach at a mean cost (R,) or below.

    It is the upper hull of the exits: to draw one of two exits at random for each image reaches any point of the line
    between them. Below the cheapest exit it is the quality of that exit.
    """
    cheapest = cost.min(1, keepdim=True)
    at = torch.maximum(at[:, None], cheapest.values)
    best = torch.where(cost <= at, quality, -torch.inf).amax(1)
    for one, other in permutations(range(cost.shape[1]), 2):
        way = (at[:, 0] - cost[:, one]) / (cost[:, other] - cost[:, one])
        mixed = quality[:, one] + way * (quality[:, other] - quality[:, one])
        between = (cost[:, one] < at[:, 0]) & (at[:, 0] < cost[:, other])
        best = torch.where(between, torch.maximum(best, mixed), best)
    return best


def corners(cost: Tensor, quality: Tensor) -> list[int]:
    """Return the columns of the exits (E,) that lie on their own upper hull, the cheapest first."""
    count = len(cost)
    reached = hull(cost.expand(count, -1), quality.expand(count, -1), cost)
    return [exit_ for exit_ in cost.argsort().tolist() if quality[exit_] >= reached[exit_] - 1e-12]


def auroc(weights: Tensor, scores: Tensor, truth: Tensor) -> Tensor:
    """Return the probability (R,) that a score (N,) is higher where the truth (N,) bool holds; nan if one is missing.

    Equal scores count half (the rank formula of Mann and Whitney, with weights).
    """
    below, order = scores[~truth].sort()
    above = scores[truth]
    ends = torch.searchsorted(below, above), torch.searchsorted(below, above, right=True)
    lower = F.pad(weights[:, ~truth][:, order].cumsum(1), (1, 0))  # (R, n + 1) weight of the lowest 0, 1, ... n
    upper = weights[:, truth]
    both = upper.sum(1) * lower[:, -1]
    return (upper * sum(lower[:, end] for end in ends)).sum(1) / (2 * both)


def deeper_is_better(weights: Tensor, scores: Tensor, quality: Tensor, depths: Sequence[int], beta: float) -> Tensor:
    """Return how well scores (N, E) rank images by whether the next exit earns more than beta per layer, as AUROC (R,).

    It is the mean over neighbouring exits, weighted by the rarer of the two answers; nan if all images agree.
    """
    total = areas = torch.zeros(len(weights), dtype=torch.float64)
    gains = utility(quality, depths, beta).diff(dim=1) > 0  # (N, E - 1)
    for score, gain in zip(scores.diff(dim=1).T, gains.T, strict=True):
        share = weights @ gain.double()
        rarer = torch.minimum(share, 1 - share).clamp(min=0)
        areas = areas + auroc(weights, score, gain).nan_to_num() * rarer
        total = total + rarer
    return areas / total
