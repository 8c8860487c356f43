"""Which exit is worth taking: ECO-M2F's utility, the oracle that maximises it, and the mean result of a choice.

Letters: N images, E exits. A choice is a column index into the exits, (N,).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.metrics.budget import Budget


def utility(quality: Tensor, depths: Sequence[int], beta: float) -> Tensor:
    """Quality (N, E) less beta for every layer run: (N, E) float64 (ECO-M2F, step B: u(k) = q_k - beta k)."""
    return quality.double() - beta * torch.as_tensor(depths, dtype=torch.float64, device=quality.device)


def best_exit(quality: Tensor, depths: Sequence[int], beta: float) -> Tensor:
    """The exit of greatest utility, the shallowest of several: (N,) column of `depths`, which rise.

    From true qualities this is the oracle's choice, from predicted ones that of a gate.
    """
    return utility(quality, depths, beta).argmax(1)  # the first of equals


def histogram(choice: Tensor, num_exits: int) -> list[int]:
    """How many images leave at each exit."""
    return torch.bincount(choice, minlength=num_exits).tolist()


class Outcome(NamedTuple):
    """Results of a choice of exits, averaged over images."""

    quality: float  # in 0..1, or minus a loss
    utility: float
    depth: float  # encoder layers
    gflops: float


def outcome(share: Tensor, quality: Tensor, cost: Tensor, depths: Sequence[int], beta: float) -> Outcome:
    """Results, averaged over images, if each leaves at exit e with probability share (N, E); (E,) if all are alike."""
    share = share.double().expand(quality.shape)
    layers = torch.as_tensor(depths, dtype=torch.float64, device=quality.device).expand(quality.shape)
    values = (quality.double(), utility(quality, depths, beta), layers, cost.double())
    return Outcome(*(float((share * value).sum(1).mean()) for value in values))


def taken(choice: Tensor, num_exits: int) -> Tensor:
    """A choice (N,) as shares (N, E): 1 at the exit taken, 0 elsewhere."""
    return torch.nn.functional.one_hot(choice, num_exits)


def mean_cost(quality: Tensor, cost: Tensor, depths: Sequence[int], beta: float) -> float:
    """Mean cost over images (N, E) that each take their best exit; qualities may be true or predicted."""
    return float(cost.double().gather(1, best_exit(quality, depths, beta)[:, None]).mean())


def crossings(scores: Tensor, depths: Sequence[int]) -> Tensor:
    """Below which price of a layer an image goes on past each exit: (N, E - 1) float64, falling in every row.

    At a price t an image takes `best_exit(scores, depths, t)`, the exit with as many crossings above t before it. They
    are the slopes of the least concave function of the depth that is nowhere below the scores (N, E).
    """
    scores, depth = scores.double(), torch.as_tensor(depths, dtype=torch.float64, device=scores.device)
    slopes = (scores[:, None] - scores[:, :, None]) / (depth - depth[:, None])  # (N, from, to)
    past = [slopes[:, : exit_ + 1, exit_ + 1 :].amax(2).amin(1) for exit_ in range(len(depths) - 1)]
    return torch.stack(past, 1)


def best_price(scores: Tensor, quality: Tensor, depths: Sequence[int], beta: float) -> float:
    """The price of a layer in units of scores (N, E) at which the exits chosen have the greatest mean utility.

    Candidates lie between the crossings of all images, and 1 below and above all of them; of equals, the largest is
    taken. A larger beta never gives a smaller price.
    """
    price, order = crossings(scores, depths).flatten().sort(descending=True)
    worth = utility(quality, depths, beta).diff(dim=1).flatten()[order]
    gained = torch.cat([worth.new_zeros(1), worth.cumsum(0)])  # if the first 0, 1, 2, ... crossings are taken
    gained[1:-1][price[1:] == price[:-1]] = -torch.inf  # equal crossings are taken together
    edges = torch.cat([price[:1] + 2, price, price[-1:] - 2])
    return float(edges[(number := int(gained.argmax())) : number + 2].mean())


def beta_for_budget(
    quality: Tensor, gflops: Tensor, depths: Sequence[int], budget: Budget, least: float = 0.0
) -> float:
    """The least beta, not below `least`, at which the mean cost over images (N, E) is within the budget, by bisection.

    Raises ValueError for a budget below the cost of the shallowest exit or above that of the deepest.
    """
    cost, most = budget.costs(gflops, depths), budget.limit
    cheapest, dearest = (float(cost[:, exit_].mean()) for exit_ in (0, -1))
    if not cheapest <= most <= dearest:
        raise ValueError(
            f"{budget.setting}={most:g}: expected {cheapest:.6g} (every image at exit {depths[0]}) to {dearest:.6g} "
            f"(at exit {depths[-1]}), the mean costs of the images that it is tried on"
        )
    high = float(quality.max() - quality.min()) + 1.0  # at which every image takes the shallowest exit
    low = max(least, -high)
    if mean_cost(quality, cost, depths, low) <= most:
        return low
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if mean_cost(quality, cost, depths, middle) <= most else (middle, high)
    return high
