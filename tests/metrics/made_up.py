"""Qualities whose truth is known: a signal that a gate could see, and noise that it could not."""

from typing import NamedTuple

import torch
from torch import Tensor

DEPTHS = [2, 3, 4, 5, 6]
BETA = 0.01
KINDS = {"function": (0.04, 0.002), "noise": (0.0, 0.02), "mix": (0.04, 0.03)}  # slope of the signal, noise


class Made(NamedTuple):
    """Images with a signal, measured twice."""

    signal: Tensor  # (N, E)
    first: Tensor
    second: Tensor
    cost: Tensor


def make(kind: str, num_images: int, seed: int, peak: float = 0.008) -> Made:
    """Exit 4 is best on average; the larger a normal number of an image, the deeper its best exit, unless all is noise.

    Images differ in how easy they are by far more than exits do. `peak` is by how much exits 3 and 5 are worse.
    """
    chance = torch.Generator().manual_seed(seed)
    slope, noise = KINDS[kind]
    away = torch.tensor(DEPTHS, dtype=torch.float64) - 4
    x, ease = torch.randn(2, num_images, 1, generator=chance, dtype=torch.float64)
    signal = 0.6 + 0.1 * ease + BETA * away - peak * away**2 + slope * x * away
    first, second = signal + noise * torch.randn(2, *signal.shape, generator=chance, dtype=torch.float64)
    return Made(signal, first, second, (100 + 20 * torch.tensor(DEPTHS)).expand(num_images, -1))
