"""Deformable sampling by a kernel of its own for GPUs: a sample is read where it lies, weighted and forgotten.

triton comes with torch's wheels for Linux. Only `src/models/sampling.py` imports this file, when a GPU runs this form.
Arguments and letters are explained there. Here R = B * N * M rows of the result, one for each query and head, are
divided among blocks.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from src.models.sampling_operation import Size, operation

TILE = 512  # rows x channels of a block: four numbers, one read of 16 bytes, for each of its 128 threads
VARYING = ["num_rows", "rows_per_image", "num_tokens"]  # compiling again for some of their values would gain nothing


def weighted_sums(value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The sums (B, N, M * D) in float32; a place that is not finite makes its own sum NaN.

    Values may be in half precision.
    """
    value, x, y, weights = (one.contiguous() for one in (value, x, y, weights))
    sums = x.new_empty(*x.shape[:2], value.shape[2] * value.shape[3], dtype=torch.float32)
    launch(forward_kernel, value, sizes, x, y, weights, sums)
    return sums


def gradients(
    value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor, grad: Tensor
) -> list[Tensor]:
    """The gradients of value, x, y and weights from that of the sums, added up in float32."""
    if torch.are_deterministic_algorithms_enabled():
        say_not_deterministic()
    value, x, y, weights, grad = (one.contiguous() for one in (value, x, y, weights, grad))
    of_value = torch.zeros_like(value, dtype=torch.float32)
    others = [torch.empty_like(one) for one in (x, y, weights)]
    launch(backward_kernel, value, sizes, x, y, weights, grad, of_value, *others)
    return [of_value.to(value.dtype), *others]


sample_by_triton = operation("sample_by_triton", weighted_sums, gradients)


def launch(kernel: Any, value: Tensor, sizes: Sequence[Size], x: Tensor, *others: Tensor) -> None:
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
def levels_on(device: torch.device, sizes: tuple[Size, ...]) -> Tensor:
    """Return height, width and first token of each level (L, 3), int32. Kept, since a copy to a GPU waits for it."""
    starts = accumulate((h * w for h, w in sizes), initial=0)
    levels = [(h, w, start) for (h, w), start in zip(sizes, starts, strict=False)]
    return torch.tensor(levels, dtype=torch.int32, device=device)


def say_not_deterministic() -> None:
    """Raise ValueError or warn, as `trainer.deterministic` asks: blocks add to a value's gradient in any order."""
    said = "the gradient of model.pixel_decoder.encoder.sampling=triton is summed in an order that varies"
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise ValueError(f"trainer.deterministic=true: {said}; expected trainer.deterministic=warn")
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


@triton.jit
def rows_of_block(
    num_rows: tl.tensor,
    rows_per_image: tl.tensor,
    num_tokens: tl.tensor,
    num_heads: tl.constexpr,
    num_channels: tl.constexpr,
    block: tl.constexpr,
    width: tl.constexpr,
) -> Any:
    """Return the rows of this block, the channels, which rows exist, which numbers are used, and where values start.

    `width` is the number of channels, rounded up. Offsets are in 64 bits.
    """
    row = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    channel = tl.arange(0, width)[None]
    exists = row < num_rows
    used = exists[:, None] & (channel < num_channels)
    first = (row // rows_per_image * num_tokens * num_heads + row % num_heads) * num_channels
    return row, channel, exists, used, first


@triton.jit
def read_sample(x: tl.tensor, y: tl.tensor, weights: tl.tensor, sample: tl.tensor, exists: tl.tensor) -> Any:
    """Return place and weight of one sample of each row, in float32."""
    px = tl.load(x + sample, exists, 0).to(tl.float32)
    py = tl.load(y + sample, exists, 0).to(tl.float32)
    return px, py, tl.load(weights + sample, exists, 0).to(tl.float32)


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
    """Sum the samples of `block` rows."""
    row, channel, exists, used, first = rows_of_block(
        num_rows, rows_per_image, num_tokens, num_heads, num_channels, block, width
    )
    total = tl.zeros((block, width), tl.float32)
    for level in range(num_levels):
        h, w, start = tl.load(levels + 3 * level), tl.load(levels + 3 * level + 1), tl.load(levels + 3 * level + 2)
        for point in tl.static_range(num_points):
            sample = (row * num_levels + level) * num_points + point
            px, py, weight = read_sample(x, y, weights, sample, exists)
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
    row, channel, exists, used, first = rows_of_block(
        num_rows, rows_per_image, num_tokens, num_heads, num_channels, block, width
    )
    given = tl.load(grad + row[:, None] * num_channels + channel, used, 0).to(tl.float32)
    for level in range(num_levels):
        h, w, start = tl.load(levels + 3 * level), tl.load(levels + 3 * level + 1), tl.load(levels + 3 * level + 2)
        for point in tl.static_range(num_points):
            sample = (row * num_levels + level) * num_points + point
            px, py, weight = read_sample(x, y, weights, sample, exists)
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
