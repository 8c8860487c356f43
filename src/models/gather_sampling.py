"""Deformable sampling by gathering rows: the form of exported graphs, whose operators every runtime has.

Arguments, result and letters are those of `src/models/sampling.py`. There is no GridSample in it, which some runtimes
get wrong, and sizes may be symbolic. A row of the table has the four pixels around a place side by side, so that a
sample is one row; one level at a time keeps memory bounded.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.sampling_operation import Size, counted, split


def sample_by_gather(value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The sums (B, N, M * D) in float32; places are rounded and compared in float32."""
    levels = split(value.float(), sizes)
    places = zip(x.unbind(3), y.unbind(3), weights.unbind(3), strict=True)
    total: Tensor | None = None
    for level, size, place in zip(levels, sizes, places, strict=True):
        summed = sums_of_level(level.unflatten(1, size), *place)
        total = summed if total is None else total + summed
    assert total is not None
    return total.flatten(2).float()


def sums_of_level(level: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The sums (B, N, M, D) over the places (B, N, M, P) in a level (B, h, w, M, D)."""
    table = neighbourhoods(level)
    num_images, num_rows, num_columns, num_heads, _ = table.shape
    height, width = counted(level.shape[1:3], x).unbind()
    # a place beyond a pixel outside is moved there, where all four pixels around it are zero or have no share
    x, y = x.clamp(min=-1).minimum(width), y.clamp(min=-1).minimum(height)
    left, top = x.floor(), y.floor()
    across, down = x - left, y - top
    low = weights * down
    high = weights - low
    right, low_right = high * across, low * across
    shares = torch.stack([high - right, right, low - low_right, low_right], -1)  # (B, N, M, P, 4)
    pixel = ((top + 1) * (width + 2) + left + 1).int()
    image = torch.arange(num_images, dtype=torch.int32, device=x.device).view(-1, 1, 1, 1)
    head = torch.arange(num_heads, dtype=torch.int32, device=x.device).view(-1, 1)
    place = (image * (num_rows * num_columns) + pixel) * num_heads + head
    found = F.embedding(place, table.flatten(0, 3)).unflatten(-1, (4, -1))  # (B, N, M, P, 4, D)
    return (shares.flatten(3).unsqueeze(-2) @ found.flatten(3, 4)).squeeze(-2)


def neighbourhoods(level: Tensor) -> Tensor:
    """A level (B, h, w, M, D) as (B, h + 2, w + 2, M, 4 D): each pixel, that to its right, and both below.

    The first row and column begin one pixel outside, and everything outside is zero.
    """
    framed = F.pad(level, (0, 0, 0, 0, 1, 2, 1, 2))
    upper, lower = framed[:, :-1], framed[:, 1:]
    return torch.cat([upper[:, :, :-1], upper[:, :, 1:], lower[:, :, :-1], lower[:, :, 1:]], -1)
