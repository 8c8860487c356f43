"""Deformable sampling: weighted sums of bilinear samples of several maps, in three forms that compute the same.

Letters: B images, N query tokens, S sampled tokens, M heads, D channels of a head, L levels, P points.

All forms take
    value: (B, S, M, D), the levels one after the other, each row by row;
    sizes: (h, w) of each of the L levels;
    x, y: (B, N, M, L, P), places in pixels of their level, 0 at the centre of its first pixel;
    weights: (B, N, M, L, P)
and return (B, N, M * D) in float32, since bfloat16 cannot tell pixels apart. Outside of a map everything is zero.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

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


def sample_by_triton(value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The form for GPUs: one kernel, which keeps no sample, in `src/models/triton_sampling.py`.

    Costs are counted on a CPU without numbers; there the reference stands in, which does as many operations.
    Raises ValueError for a device without Triton.
    """
    if value.device.type == "cpu" and isinstance(value, FakeTensor):
        return sample_by_grid(value, sizes, x, y, weights)
    check_form(value.device, "triton")
    from src.models.triton_sampling import sample

    return sample(value, sizes, x, y, weights)


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


FORMS: dict[str, Sample] = {"grid": sample_by_grid, "rows": sample_by_rows, "triton": sample_by_triton}


def form_on(device: torch.device, sampling: str) -> str:
    """Return the form to use on a device for a setting: itself, or the fastest one for `auto`."""
    if sampling != "auto":
        return sampling
    if device.type == "cpu":
        return "rows"
    return "grid" if why_no_triton(device) else "triton"


def check_form(device: torch.device, sampling: str) -> str:
    """Return the form to use on a device, with the reason if `auto` cannot use Triton on it.

    Raises ValueError if the setting asks for Triton where it cannot run.
    """
    form = form_on(device, sampling)
    reason = None if form == "rows" else why_no_triton(device)
    if form == "triton" and reason:
        raise ValueError(f"model.pixel_decoder.encoder.sampling=triton: {reason}; expected auto, grid or rows")
    return f"grid ({reason})" if sampling == "auto" and form == "grid" else form


@torch.compiler.assume_constant_result
def why_no_triton(device: torch.device) -> str | None:
    """Return why Triton's kernel cannot run on a device; None: it can, and a trial gave what the reference gives."""
    return tried(device)


@cache
def tried(device: torch.device) -> str | None:
    """As `why_no_triton`, once per device; torch.compile takes its result as it is."""
    if device.type != "cuda":
        return f"triton runs on GPUs, not on {device.type}"
    if find_spec("triton") is None:
        return "triton is not installed"
    if torch.cuda.get_device_capability(device) < (7, 0):
        return "triton needs a GPU of compute capability 7.0"
    try:  # it also needs a C compiler and Python's headers
        return None if agrees(device) else "triton gave other sums than the reference in a trial on this GPU"
    except Exception as error:
        return (
            f"triton failed in a trial on this GPU: {str(error).strip().partition(chr(10))[0] or type(error).__name__}"
        )


def agrees(device: torch.device) -> bool:
    """Whether Triton's kernel gives the sums and gradients of the reference for a few places in small maps."""
    from src.models.triton_sampling import sample

    sizes, results = [(2, 3), (3, 3)], []
    for form, where in ((sample_by_grid, torch.device("cpu")), (sample, device)):
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(where.type, enabled=False):
            value = torch.linspace(-1, 1, 2 * 15 * 2 * 8).cos().view(2, 15, 2, 8)
            x, y, weights = (torch.linspace(start, 3.3, 2 * 5 * 2 * 2 * 3).view(2, 5, 2, 2, 3) for start in (-2, -1, 0))
            inputs = [one.to(where).requires_grad_() for one in (value, x, y.flip(1), weights)]
            sums = form(inputs[0], sizes, *inputs[1:])
            results.append([one.detach().cpu() for one in (sums, *torch.autograd.grad(sums.square().sum(), inputs))])
    return all(torch.allclose(a, b, atol=1e-4, rtol=1e-4) for a, b in zip(*results, strict=True))
