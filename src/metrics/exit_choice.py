"""Which exit is worth taking: ECO-M2F's utility, the oracle that maximises it, and the mean result of a choice.

Letters: N images, E exits. A choice is a column index into the exits, (N,).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


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
    """Mean GFLOPs over images (N, E) that each take their best exit; qualities may be true or predicted."""
    return float(cost.double().gather(1, best_exit(quality, depths, beta)[:, None]).mean())


def beta_for_budget(quality: Tensor, cost: Tensor, depths: Sequence[int], budget: float) -> float:
    """The least beta at which the mean cost over images (N, E) is within the budget, by bisection.

    Raises ValueError for a budget below the cost of the shallowest exit or above that of the deepest.
    """
    least, most = (float(cost[:, exit_].double().mean()) for exit_ in (0, -1))
    if not least <= budget <= most:
        raise ValueError(
            f"budget_gflops={budget:g}: expected {least:.6g} (every image at exit {depths[0]}) to {most:.6g} (at exit "
            f"{depths[-1]}), the mean costs of the images that it is tried on"
        )
    if mean_cost(quality, cost, depths, 0.0) <= budget:
        return 0.0
    low, high = 0.0, float(quality.max() - quality.min()) + 1.0  # at which every image takes the shallowest exit
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if mean_cost(quality, cost, depths, middle) <= budget else (middle, high)
    return high
