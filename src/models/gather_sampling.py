"""Deformable sampling by gathering rows: the form of exported graphs, whose operators every runtime has.

Arguments, result and letters are those of `src/models/sampling.py`. There is no GridSample in it, which some runtimes
get wrong, and sizes may be symbolic. One corner of one level is gathered at a time, so that memory stays bounded.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from src.models.sampling_operation import Size, counted


def sample_by_gather(value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The sums (B, N, M * D) in float32; places are rounded and compared in float32."""
    num_images, num_tokens, num_heads, _ = value.shape
    table = value.float().flatten(0, 2)  # (B * S * M, D)
    firsts = list(accumulate((h * w for h, w in sizes), initial=0))[:-1]  # the first token of each level
    rows, shares = corners(sizes, firsts, x, y, weights)  # (4, B, N, M, L, P)
    image = torch.arange(num_images, device=value.device).view(-1, 1, 1, 1)
    head = torch.arange(num_heads, device=value.device).view(-1, 1)
    total: Tensor | None = None
    for row, share in zip(rows.unbind(0), shares.unbind(0), strict=True):
        for token, weight in zip(row.unbind(3), share.unbind(3), strict=True):  # (B, N, M, P)
            place = (image * num_tokens + token) * num_heads + head
            found = table[place]  # (B, N, M, P, D)
            summed = (found * weight[..., None]).sum(-2)
            total = summed if total is None else total + summed
    assert total is not None
    return total.flatten(2)


def corners(
    sizes: Sequence[Size], firsts: Sequence[int], x: Tensor, y: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Of the four pixels around each place, the token, int64, and its share of the sum: (4, B, N, M, L, P) each.

    A pixel outside has the share zero.
    """
    height, width, first = (counted(numbers, x)[:, None] for numbers in (*zip(*sizes, strict=True), firsts))  # (L, 1)
    left, top = x.floor(), y.floor()
    across, down = x - left, y - top
    columns = torch.stack([left, left + 1, left, left + 1])
    rows = torch.stack([top, top, top + 1, top + 1])
    beside, below = torch.stack([1 - across, across]), torch.stack([1 - down, down])
    shares = (below[:, None] * beside[None]).flatten(0, 1) * weights
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    shares = torch.where(inside, shares, 0.0)
    pixel = rows.minimum(height - 1).clamp(min=0) * width + columns.minimum(width - 1).clamp(min=0)
    return pixel.long() + first.long(), shares
