"""Deformable sampling: weighted sums of bilinear samples of several maps, in two forms that compute the same.

Letters: B images, N query tokens, S sampled tokens, M heads, D channels of a head, L levels, P points.

Both forms take
    value: (B, S, M, D), the levels one after the other, each row by row;
    sizes: (h, w) of each of the L levels;
    x, y: (B, N, M, L, P), places in pixels of their level, 0 at the centre of its first pixel;
    weights: (B, N, M, L, P)
and return (B, N, M * D) in float32, since bfloat16 cannot tell pixels apart. Outside of a map everything is zero.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]
Sample = Callable[[Tensor, Sequence[Size], Tensor, Tensor, Tensor], Tensor]
MARGIN = 2  # zero pixels on each side of a map; all four neighbours of a place at least a pixel outside lie there


def sample_by_grid(value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The reference: torch's grid sampling, one level after the other."""
    weights = weights.permute(3, 0, 2, 4, 1).flatten(1, 2)[:, :, None]  # (L, B * M, 1, P, N)
    places = torch.stack([x, y], -1).permute(3, 0, 2, 4, 1, 5).flatten(1, 2)  # (L, B * M, P, N, 2)
    levels = split(value.float(), sizes)
    sums: list[Tensor] = []
    for level, (h, w), place, weight in zip(levels, sizes, places, weights, strict=True):
        image = level.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, (h, w))  # (B * M, D, h, w)
        grid = (2 * place + 1) / place.new_tensor([w, h]) - 1  # -1 and 1 are the outer edges of the map
        sums.append((F.grid_sample(image, grid, align_corners=False) * weight).sum(2))  # of (B * M, D, P, N)
    total = torch.stack(sums).sum(0) if len(sums) > 1 else sums[0]  # (B * M, D, N)
    return total.unflatten(0, (len(value), -1)).permute(0, 3, 1, 2).flatten(2)


def sample_by_rows(value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The form for CPUs: one weighted sum over rows of a table, four rows per place, with no copy per sample.

    Each map gets a margin of zeros and places are clamped to it, so that no place needs a test of its own.
    """
    num_images, num_heads, dim = len(value), value.shape[2], value.shape[3]
    maps = [level.unflatten(1, size) for level, size in zip(split(value.float(), sizes), sizes, strict=True)]
    table = torch.cat([F.pad(one, (0, 0, 0, 0, *[MARGIN] * 4)).flatten(1, 2) for one in maps], 1)  # (B, S', M, D)

    height, width = torch.tensor(sizes, device=x.device).T[:, :, None]  # (L, 1) each
    stride = width + 2 * MARGIN
    areas = [(h + 2 * MARGIN) * (w + 2 * MARGIN) for h, w in sizes]
    start = torch.tensor([0, *accumulate(areas)][:-1], device=x.device)[:, None]  # (L, 1)
    origin = (start + MARGIN * stride + MARGIN).int()  # place in the table of a level's first pixel

    x = x.clamp(min=-MARGIN).minimum(width.float())
    y = y.clamp(min=-MARGIN).minimum(height.float())
    left, top = x.floor(), y.floor()
    place = ((top * stride + left).int() + origin).clamp_(min=0)  # (B, N, M, L, P); a NaN may become any integer
    image = torch.arange(num_images, device=x.device, dtype=torch.int32)[:, None, None, None, None]
    head = torch.arange(num_heads, device=x.device, dtype=torch.int32)[:, None, None]
    row = (image * table.shape[1] + place) * num_heads + head
    below = stride.int() * num_heads  # from a pixel to the one below it
    rows = torch.stack([row, row + num_heads, row + below, row + below + num_heads], -1)

    bottom = weights * (y - top)
    above = weights - bottom
    right, bottom_right = above * (x - left), bottom * (x - left)
    shares = torch.stack([above - right, right, bottom - bottom_right, bottom_right], -1)
    sums = SumOfRows.apply(table.flatten(0, 2), rows.flatten(0, 2).flatten(1), shares.flatten(0, 2).flatten(1))
    return sums.view(num_images, -1, num_heads * dim)


def split(value: Tensor, sizes: Sequence[Size]) -> Sequence[Tensor]:
    """Split tokens (B, S, ...) into those of each level."""
    return value.split([h * w for h, w in sizes], 1)


class SumOfRows(torch.autograd.Function):
    """Weighted sums of rows of a table (R, D), for rows and weights (N, K) each: (N, D).

    The gradient of the table sorts the rows and sums them like the forward, which is faster than torch's own scatter.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, rows, weights)
        return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, rows, weights = ctx.saved_tensors
        (num_bags, size), flat, grad = rows.shape, rows.flatten(), grad.contiguous()
        of_table = of_weights = None
        if ctx.needs_input_grad[0]:
            ordered, order = flat.sort()
            starts = torch.searchsorted(ordered, torch.arange(len(table), device=rows.device, dtype=rows.dtype))
            bags, shares = order.div(size, rounding_mode="floor"), weights.flatten()[order]
            of_table = F.embedding_bag(bags, grad, starts, per_sample_weights=shares, mode="sum")
        if ctx.needs_input_grad[2]:
            first = torch.arange(0, len(flat), size, device=rows.device, dtype=rows.dtype)
            bag = torch.arange(num_bags, device=rows.device, dtype=rows.dtype).repeat_interleave(size)
            product = torch.ops.aten._embedding_bag_per_sample_weights_backward
            of_weights = product(grad, table, flat, first, bag, 0).view_as(weights)  # 0: the mode is "sum"
        return of_table, None, of_weights


def softmax(scores: Tensor) -> Tensor:
    """The softmax over a last axis of a dozen scores, for which torch's own is slow on CPUs."""
    if scores.device.type != "cpu":
        return scores.softmax(-1)
    shares = (scores - scores.detach().amax(-1, keepdim=True)).exp()
    return shares / shares.sum(-1, keepdim=True)


FORMS: dict[str, Sample] = {"grid": sample_by_grid, "rows": sample_by_rows}


def form_on(device: torch.device, sampling: str) -> str:
    """Return the form to use on a device for a setting: itself, or the fastest one for `auto`."""
    return ("rows" if device.type == "cpu" else "grid") if sampling == "auto" else sampling
