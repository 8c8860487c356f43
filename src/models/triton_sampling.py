"""Deformable sampling by a kernel of its own for GPUs: a sample is read where it lies, weighted and forgotten.

triton comes with torch's wheels for Linux. Only `src/models/sampling.py` imports this file, when a GPU runs this form.
Arguments and letters are explained there. Here R = B * N * M rows of the result, one for each query and head, are
divided among blocks. As a custom operation of torch's, it is one node for autograd and for `torch.compile`.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 512  # rows x channels of a block: four numbers, one read of 16 bytes, for each of its 128 threads
VARYING = ["num_rows", "rows_per_image", "num_tokens"]  # compiling again for some of their values would gain nothing


def sample(value: Tensor, sizes: Sequence[tuple[int, int]], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Arguments and result are those of `sample_by_grid`; a place that is not finite makes its own sum NaN.

    Values and gradients may be in half precision, all sums are in float32.
    """
    return weighted_sums(value, [*chain(*sizes)], x, y, weights)


@torch.library.custom_op(
    "ecoscale::weighted_sums",
    mutates_args=(),
    schema="(Tensor value, SymInt[] sizes, Tensor x, Tensor y, Tensor weights) -> Tensor",
)
def weighted_sums(value: Tensor, sizes: Sequence[int], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Launch the forward kernel; `sizes` are h, w of the first level, h, w of the second, ..."""
    value, x, y, weights = (one.contiguous() for one in (value, x, y, weights))
    sums = no_sums(value, sizes, x, y, weights)
    launch(forward_kernel, value, sizes, x, y, weights, sums)
    return sums


@torch.library.custom_op(
    "ecoscale::weighted_sums_backward",
    mutates_args=(),
    schema="(Tensor value, SymInt[] sizes, Tensor x, Tensor y, Tensor weights, Tensor grad) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)
def gradients(
    value: Tensor, sizes: Sequence[int], x: Tensor, y: Tensor, weights: Tensor, grad: Tensor
) -> tuple[Tensor, ...]:
    """Launch the backward kernel: the gradients of value, x, y and weights."""
    if torch.are_deterministic_algorithms_enabled():
        say_not_deterministic()
    value, x, y, weights, grad = (one.contiguous() for one in (value, x, y, weights, grad))
    of_value = torch.zeros_like(value, dtype=torch.float32)
    others = [torch.empty_like(one) for one in (x, y, weights)]
    launch(backward_kernel, value, sizes, x, y, weights, grad, of_value, *others)
    return of_value.to(value.dtype), *others


def no_sums(value: Tensor, sizes: Sequence[int], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Return the result without its numbers."""
    return x.new_empty(*x.shape[:2], value.shape[2] * value.shape[3], dtype=torch.float32)


def no_gradients(
    value: Tensor, sizes: Sequence[int], x: Tensor, y: Tensor, weights: Tensor, grad: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients without their numbers."""
    return tuple(one.new_empty(one.shape) for one in (value, x, y, weights))


def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep the arguments, and nothing per sample."""
    value, ctx.sizes, x, y, weights = inputs
    ctx.save_for_backward(value, x, y, weights)


def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    value, x, y, weights = ctx.saved_tensors
    of_value, of_x, of_y, of_weights = gradients(value, ctx.sizes, x, y, weights, grad)
    return of_value, None, of_x, of_y, of_weights


weighted_sums.register_fake(no_sums)
weighted_sums.register_autograd(backward, setup_context=keep)
gradients.register_fake(no_gradients)


def launch(kernel: Any, value: Tensor, sizes: Sequence[int], x: Tensor, *others: Tensor) -> None:
    """Run a kernel on contiguous tensors, a block for every few rows."""
    num_rows, num_channels = x.shape[:3].numel(), value.shape[3]
    width = triton.next_power_of_2(num_channels)
    block = max(TILE // width, 1)
    with torch.cuda.device_of(value):  # triton launches on the current device
        kernel[(triton.cdiv(num_rows, block),)](
            *(value, levels_on(value.device, tuple(sizes)), x, *others),
            *(num_rows, x.shape[1:3].numel(), value.shape[1], *value.shape[2:], *x.shape[3:], block, width),
        )


@lru_cache(maxsize=256)
def levels_on(device: torch.device, sizes: tuple[int, ...]) -> Tensor:
    """Return height, width and first token of each level (L, 3), int32. Kept, since a copy to a GPU waits for it."""
    heights, widths = sizes[::2], sizes[1::2]
    starts = accumulate((h * w for h, w in zip(heights, widths, strict=True)), initial=0)
    return torch.tensor([*zip(heights, widths, starts, strict=False)], dtype=torch.int32, device=device)


def say_not_deterministic() -> None:
    """Raise ValueError or warn, as `trainer.deterministic` asks: blocks add to a value's gradient in any order."""
    said = "the gradient of model.pixel_decoder.encoder.sampling=triton is summed in an order that varies"
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise ValueError(f"trainer.deterministic=true: {said}; expected sampling=rows, or trainer.deterministic=warn")
    warnings.warn(said, stacklevel=2)


@triton.jit
def locate(at: tl.tensor, size: tl.tensor) -> Any:
    """Return the pixel before a place along one axis, the distance from it, and whether a neighbour is in the map."""
    near = (at >= -1) & (at < size)  # false for NaN
    before = tl.floor(at)
    return tl.where(near, before, 0.0).to(tl.int32), at - before, near


@triton.jit
def neighbour(corner: tl.constexpr, x: tl.tensor, y: tl.tensor, h: tl.tensor, w: tl.tensor) -> Any:
    """Return a pixel around a place, whether it is in the map, and the factors of its share along x and y."""
    left, across, near_x = locate(x, w)
    top, down, near_y = locate(y, h)
    column, line = left + corner % 2, top + corner // 2
    inside = near_x & near_y & (column >= 0) & (column < w) & (line >= 0) & (line < h)
    share_x = across if corner % 2 == 1 else 1 - across
    share_y = down if corner // 2 == 1 else 1 - down
    return line * w + column, inside, share_x, share_y


@triton.jit(do_not_specialize=VARYING)
def forward_kernel(
    value: tl.tensor,
    levels: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    weights: tl.tensor,
    sums: tl.tensor,
    num_rows: tl.tensor,
    rows_per_image: tl.tensor,
    num_tokens: tl.tensor,
    num_heads: tl.constexpr,
    num_channels: tl.constexpr,
    num_levels: tl.constexpr,
    num_points: tl.constexpr,
    block: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """Sum the samples of `block` rows; `width` is the number of channels, rounded up. Offsets are in 64 bits."""
    row = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    channel = tl.arange(0, width)[None]
    exists = row < num_rows
    used = exists[:, None] & (channel < num_channels)
    first = (row // rows_per_image * num_tokens * num_heads + row % num_heads) * num_channels
    total = tl.zeros((block, width), tl.float32)
    for level in range(num_levels):
        h, w, start = tl.load(levels + 3 * level), tl.load(levels + 3 * level + 1), tl.load(levels + 3 * level + 2)
        for point in tl.static_range(num_points):
            sample = (row * num_levels + level) * num_points + point
            px = tl.load(x + sample, exists, 0).to(tl.float32)
            py = tl.load(y + sample, exists, 0).to(tl.float32)
            weight = tl.load(weights + sample, exists, 0).to(tl.float32)
            for corner in tl.static_range(4):
                pixel, inside, share_x, share_y = neighbour(corner, px, py, h, w)
                at = (first + (start + pixel).to(tl.int64) * (num_heads * num_channels))[:, None] + channel
                read = tl.load(value + at, used & inside[:, None], 0).to(tl.float32)
                total += (weight * share_x * share_y)[:, None] * read
    tl.store(sums + row[:, None] * num_channels + channel, total, used)


@triton.jit(do_not_specialize=VARYING)
def backward_kernel(
    value: tl.tensor,
    levels: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    weights: tl.tensor,
    grad: tl.tensor,
    of_value: tl.tensor,
    of_x: tl.tensor,
    of_y: tl.tensor,
    of_weights: tl.tensor,
    num_rows: tl.tensor,
    rows_per_image: tl.tensor,
    num_tokens: tl.tensor,
    num_heads: tl.constexpr,
    num_channels: tl.constexpr,
    num_levels: tl.constexpr,
    num_points: tl.constexpr,
    block: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """Add the gradient of `block` rows to those of their values, and write those of their places and weights."""
    row = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    channel = tl.arange(0, width)[None]
    exists = row < num_rows
    used = exists[:, None] & (channel < num_channels)
    first = (row // rows_per_image * num_tokens * num_heads + row % num_heads) * num_channels
    given = tl.load(grad + row[:, None] * num_channels + channel, used, 0).to(tl.float32)
    for level in range(num_levels):
        h, w, start = tl.load(levels + 3 * level), tl.load(levels + 3 * level + 1), tl.load(levels + 3 * level + 2)
        for point in tl.static_range(num_points):
            sample = (row * num_levels + level) * num_points + point
            px = tl.load(x + sample, exists, 0).to(tl.float32)
            py = tl.load(y + sample, exists, 0).to(tl.float32)
            weight = tl.load(weights + sample, exists, 0).to(tl.float32)
            by_x, by_y, by_weight = tl.zeros_like(px), tl.zeros_like(px), tl.zeros_like(px)
            for corner in tl.static_range(4):
                pixel, inside, share_x, share_y = neighbour(corner, px, py, h, w)
                at = (first + (start + pixel).to(tl.int64) * (num_heads * num_channels))[:, None] + channel
                mask = used & inside[:, None]
                product = tl.sum(given * tl.load(value + at, mask, 0).to(tl.float32), 1)
                by_weight += share_x * share_y * product
                by_x += (corner % 2 * 2 - 1) * share_y * product
                by_y += (corner // 2 * 2 - 1) * share_x * product
                tl.atomic_add(of_value + at, (weight * share_x * share_y)[:, None] * given, mask, sem="relaxed")
            tl.store(of_x + sample, weight * by_x, exists)
            tl.store(of_y + sample, weight * by_y, exists)
            tl.store(of_weights + sample, by_weight, exists)
