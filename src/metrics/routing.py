"""What a choice of exits earns beyond fixed exits and beyond chance, on many weightings of the images at once.

Letters: N images, E exits, R rows of weights (see `bootstrap`). Costs are GFLOPs.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import torch
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


def auroc(scores: Tensor, truth: Tensor) -> float | None:
    """Return the probability that a score (N,) is higher where the truth (N,) bool holds; None if one is missing.

    Equal scores count half (the rank formula of Mann and Whitney).
    """
    above, below = scores[truth], scores[~truth].sort().values
    if not len(above) or not len(below):
        return None
    lower = torch.searchsorted(below, above) + torch.searchsorted(below, above, right=True)
    return float(lower.double().mean()) / (2 * len(below))


def deeper_is_better(scores: Tensor, quality: Tensor, depths: Sequence[int], beta: float) -> float | None:
    """Return how well scores (N, E) rank images by whether the next exit earns more than beta per layer, as AUROC.

    It is the mean over neighbouring exits, weighted by the rarer of the two answers; None if all images agree.
    """
    gains = utility(quality, depths, beta).diff(dim=1) > 0  # (N, E - 1)
    parts = [
        (auroc(s, g), min(int(g.sum()), int((~g).sum()))) for s, g in zip(scores.diff(dim=1).T, gains.T, strict=True)
    ]
    total = sum(rarer for _, rarer in parts)
    return sum(area * rarer for area, rarer in parts if area is not None) / total if total else None
