"""Confidence intervals by resampling images: one set of weights for all figures, so that differences stay paired.

Letters: N images, R rows of weights, the first of which is the sample itself.
"""

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


def resamples(num_images: int, count: int, seed: int) -> Iterator[Tensor]:
    """Yield weights (R, N) float64 that sum to 1 in each row: of the sample itself, then of `count` resamples.

    A resample draws N of N images with replacement. The weights depend on the arguments only.
    """
    generator = torch.Generator().manual_seed(seed)
    yield torch.full((1, num_images), 1 / num_images, dtype=torch.float64)
    for part in torch.arange(count).split(max(ELEMENTS // num_images, 1)):
        drawn = torch.randint(num_images, (len(part), num_images), generator=generator)
        drawn += num_images * torch.arange(len(part))[:, None]
        times = torch.bincount(drawn.flatten(), minlength=len(part) * num_images)
        yield times.view(len(part), num_images).double() / num_images


def estimate(values: Tensor) -> Estimate:
    """Return the first of some values (R,), and the percentile interval of the others, nan aside."""
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=values.dtype)
    low, high = values[1:].nanquantile(ends).tolist()
    return Estimate(float(values[0]), low, high)
