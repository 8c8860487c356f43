"""How much a gate can earn, without the luck of one measurement: the headroom that two measurements agree on.

The oracle takes each image's best exit in hindsight, and that hindsight includes noise: another training, or the
mirrored image, would have put another exit first. Only the part that a second measurement repeats is a property of the
image, which a gate could see.

Letters: N images, E exits, R rows of weights (see `bootstrap`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.metrics.exit_choice import best_exit, utility
from src.metrics.routing import Outcomes, chosen, fixed

RANK = 1e-10  # eigenvalues below this share of the largest count as 0


class Ceiling(NamedTuple):
    """The oracle without noise, under each weighting, and what it earns beyond fixed exits and chance: (R,) each."""

    outcomes: Outcomes
    over_best: Tensor  # utility beyond that of the best fixed exit
    over_chance: Tensor  # utility beyond that of random exits with the same histogram


def ceiling(
    weights: Tensor, first: Tensor, second: Tensor, cost: Tensor, depths: Sequence[int], beta: float
) -> Ceiling:
    """Return what the best exit of each image earns by the qualities that two measurements (N, E) agree on.

    Deviations of the mean of both from the average image are scaled so that they have the covariance of the signal
    (constrained empirical Bayes): noise would spread the best exits of images too far, plain shrinkage not far enough.
    """
    mean = (first.double() + second.double()) / 2  # (N, E)
    level = mean.mean(1, keepdim=True)  # how easy an image is, which does not help to choose an exit
    average, scale = shrinkage(weights, centred(first), centred(second))
    layers = torch.as_tensor(depths, dtype=torch.float64)
    signal = average[:, None] + (mean - level - average[:, None]) @ scale  # (R, N, E)
    gains, choice = (signal - beta * layers).max(2)  # (R, N)
    share = torch.zeros_like(average).scatter_add_(1, choice, weights)  # (R, E)
    every = fixed(weights, mean, cost, depths, beta)
    base = weights @ level[:, 0]
    gained = (weights * gains).sum(1) + base  # (R,)
    gflops = (weights * cost.double().expand(len(weights), -1, -1).gather(2, choice[..., None])[..., 0]).sum(1)
    outcomes = Outcomes(gained + beta * (share * layers).sum(1), gained, gflops)
    best = int(utility(mean, depths, beta).mean(0).argmax())
    return Ceiling(outcomes, gained - every.utility[:, best], gained - every.mixed(share).utility)


def centred(quality: Tensor) -> Tensor:
    """Return qualities (N, E) less each image's mean over exits, as float64."""
    return quality.double() - quality.double().mean(1, keepdim=True)


def shrinkage(weights: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the average image (R, E) of two centred measurements, and the matrix (R, E, E) that scales deviations.

    The signal's covariance is the cross-covariance of the two measurements, whose noise is independent.
    """
    mean = (first + second) / 2
    average = weights @ mean
    cross = moments(weights, first, second) - (weights @ first)[:, :, None] * (weights @ second)[:, None]
    whole = moments(weights, mean, mean) - average[:, :, None] * average[:, None]
    return average, transport(whole, positive(cross))


def moments(weights: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Return the weighted means (R, E, E) of the products of columns of (N, E) and (N, E)."""
    products = (one[:, :, None] * other[:, None]).flatten(1)
    return (weights @ products).unflatten(1, (one.shape[1], other.shape[1]))


def positive(matrix: Tensor) -> Tensor:
    """Return the nearest covariance (R, E, E) to the symmetric part of a matrix that has the same trace.

    To cut off negative eigenvalues alone would add up the positive part of the sampling error, and see signal in pure
    noise; the trace, the signal's total variance, has no such bias. A negative trace gives 0.
    """
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    values, vectors = values.flip(1), vectors.flip(2)  # largest first
    total = values.sum(1, keepdim=True).clamp(min=0)
    excess = (values.cumsum(1) - total) / torch.arange(1, values.shape[1] + 1)
    last = (values > excess).sum(1, keepdim=True).clamp(min=1) - 1
    kept = (values - excess.gather(1, last)).clamp(min=0)  # sums to `total`
    return (vectors * kept[:, None]) @ vectors.mT


def transport(source: Tensor, goal: Tensor) -> Tensor:
    """Return the symmetric matrix A (R, E, E) of least displacement with A source A' = goal, both covariances."""
    values, vectors = torch.linalg.eigh(source)
    kept = values > RANK * values.amax(1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    roots = torch.where(kept, values, 0).sqrt()
    root = (vectors * roots[:, None]) @ vectors.mT
    inverse = (vectors * torch.where(kept, 1 / roots, 0)[:, None]) @ vectors.mT
    values, vectors = torch.linalg.eigh(root @ goal @ root)
    middle = (vectors * values.clamp(min=0).sqrt()[:, None]) @ vectors.mT
    return inverse @ middle @ inverse


def cross_lead(
    weights: Tensor, first: Tensor, second: Tensor, cost: Tensor, depths: Sequence[int], beta: float
) -> Tensor:
    """Return the utility (R,) of the best exits by one measurement, scored by the other, beyond the best fixed exit.

    It is the mean of both ways. Noise in the choice costs, so that a good gate may earn more.
    """
    leads = []
    for by, scored in ((first, second), (second, first)):
        best = int(utility(scored, depths, beta).mean(0).argmax())
        earned = chosen(weights, best_exit(by, depths, beta), scored, cost, depths, beta).utility
        leads.append(earned - weights @ utility(scored, depths, beta)[:, best])
    return (leads[0] + leads[1]) / 2
