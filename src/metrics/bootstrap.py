"""Confidence intervals by resampling images: one set of weights for all figures, so that differences stay paired.

Letters: N images, R rows of weights, the first of which is the sample itself.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

LEVEL = 0.95
ELEMENTS = 1 << 21  # of a chunk of weights


class Estimate(NamedTuple):
    """A figure with its confidence interval."""

    value: float
    low: float
    high: float


def resamples(num_images: int, count: int, seed: int, block: int = 1) -> Iterator[Tensor]:
    """Yield weights (R, N) float64 that sum to 1 in each row: of the sample itself, then of `count` resamples.

    A resample draws N of N images with replacement, `block` neighbours at a time, where the last image is followed by
    the first (circular block bootstrap, Politis and Romano 1992). The weights depend on the arguments only.
    """
    generator = torch.Generator().manual_seed(seed)
    yield torch.full((1, num_images), 1 / num_images, dtype=torch.float64)
    for part in torch.arange(count).split(max(ELEMENTS // num_images, 1)):
        starts = torch.randint(num_images, (len(part), math.ceil(num_images / block)), generator=generator)
        drawn = (starts[..., None] + torch.arange(block)).flatten(1)[:, :num_images] % num_images
        drawn += num_images * torch.arange(len(part))[:, None]
        times = torch.bincount(drawn.flatten(), minlength=len(part) * num_images)
        yield times.view(len(part), num_images).double() / num_images


def likeness_of_neighbours(values: Tensor) -> float:
    """Return how alike neighbouring rows (N, E) are, as a correlation: of what is left without the means of both kinds.

    These are the mean of each row and the mean of each column. 0 if nothing is left.
    """
    values = values.double()
    values = values - values.mean(1, keepdim=True)
    values = values - values.mean(0)
    return float((values[1:] * values[:-1]).sum() / values.square().sum().clamp(min=torch.finfo(values.dtype).tiny))


def estimate(values: Tensor) -> Estimate:
    """Return the first of some values (R,), and the percentile interval of the others, nan aside."""
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=values.dtype)
    low, high = values[1:].nanquantile(ends).tolist()
    return Estimate(float(values[0]), low, high)
