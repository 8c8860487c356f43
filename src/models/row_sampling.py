"""Deformable sampling on CPUs: every sum of samples is a weighted sum over rows of a table, four rows per sample.

Arguments, result and letters are those of `src/models/sampling.py`. Here K = 4 * L * P rows are summed for each of the
Q = B * N queries and M heads. Queries come in pieces, so that what is computed per sample stays in the CPU's cache, and
nothing per sample is kept for the backward pass, which computes it again.
"""

import warnings
from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from torch import Tensor

from src.models.sampling_operation import Size, operation, split

MARGIN = 2  # zero pixels on each side of a map; all four neighbours of a place at least a pixel outside lie there
PIECE = 1024  # queries at the same time


def weighted_sums(value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The sums (B, N, M * D) in float32."""
    table, places = framed(value, sizes), Places(value, sizes, x, y, weights)
    rows_of_table, sums = table.flatten(0, 2), table.new_empty(len(places), *value.shape[2:])
    for some in places.pieces():
        rows, shares, _, _, _ = places.corners(some)
        summed = F.embedding_bag(rows, rows_of_table, per_sample_weights=shares, mode="sum")
        sums[some] = summed.unflatten(0, (-1, value.shape[2]))
    return sums.view(*x.shape[:2], -1)


def gradients(
    value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor, grad: Tensor
) -> list[Tensor]:
    """The gradients of value, x, y and weights from that of the sums."""
    table, places = framed(value, sizes), Places(value, sizes, x, y, weights)
    rows_of_table, grad = table.flatten(0, 2), grad.reshape(-1, value.shape[3])  # (Q * M, D)
    of_x, of_y, of_weights = (torch.empty(x.shape) for _ in range(3))
    num_heads, all_rows, all_shares = value.shape[2], [], []
    for some in places.pieces():
        rows, shares, weight, across, down = places.corners(some)
        product = products(grad[some.start * num_heads : some.stop * num_heads], rows_of_table, rows)
        a, b, c, d = product.view(len(weight), num_heads, 4, *weight.shape[2:]).unbind(2)  # above, then below
        above, below = a.lerp(b, across), c.lerp(d, across)
        of_weights.flatten(0, 1)[some] = above.lerp(below, down)
        of_y.flatten(0, 1)[some] = weight * (below - above)
        of_x.flatten(0, 1)[some] = weight * (b - a).lerp(d - c, down)
        all_rows.append(rows)
        all_shares.append(shares)
    of_table = transposed_product(torch.cat(all_rows), torch.cat(all_shares), grad, len(rows_of_table))
    of_value = [inside.flatten(1, 2) for inside in insides(of_table.view_as(table), sizes)]
    return [torch.cat(of_value, 1).to(value.dtype), of_x, of_y, of_weights]


class Places:
    """Where the samples lie in the table, piece by piece."""

    def __init__(self, value: Tensor, sizes: Sequence[Size], x: Tensor, y: Tensor, weights: Tensor):
        self.x, self.y, self.weights = (one.flatten(0, 1) for one in (x, y, weights))  # (Q, M, L, P)
        num_images, _, num_heads, _ = value.shape
        areas = [*accumulate(((h + 2 * MARGIN) * (w + 2 * MARGIN) for h, w in sizes), initial=0)]
        height, width = torch.tensor(sizes).T[:, :, None].expand(-1, -1, x.shape[-1])  # (L, P) each
        self.height, self.width = height.float(), width.float()
        self.stride = (width + 2 * MARGIN).int()  # from a pixel to the one below it
        self.origin = (torch.tensor(areas[:-1])[:, None] + MARGIN * self.stride + MARGIN).int()  # of the first pixels
        self.image = areas[-1] * torch.arange(num_images, dtype=torch.int32).repeat_interleave(x.shape[1])
        self.head, self.num_heads = torch.arange(num_heads, dtype=torch.int32)[:, None, None], num_heads

    def __len__(self) -> int:
        return len(self.x)

    def pieces(self) -> Iterator[slice]:
        return (slice(start, min(start + PIECE, len(self))) for start in range(0, len(self), PIECE))

    def corners(self, some: slice) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Rows and shares (Q * M, K) of some queries, their weights, and how far places lie after a pixel's centre.

        Places are clamped to the margin, so that none needs a test of its own.
        """
        x = self.x[some].clamp(min=-MARGIN).minimum(self.width)
        y = self.y[some].clamp(min=-MARGIN).minimum(self.height)
        left, top, weight = x.floor(), y.floor(), self.weights[some]
        across, down = x - left, y - top
        place = ((top * self.stride + left).int() + self.origin).clamp_(min=0)  # a NaN may become any integer
        row = (self.image[some, None, None, None] + place) * self.num_heads + self.head
        below = self.stride * self.num_heads
        rows = torch.stack([row, row + self.num_heads, row + below, row + below + self.num_heads], 2)
        low = weight * down
        high = weight - low
        right, low_right = high * across, low * across
        shares = torch.stack([high - right, right, low - low_right, low_right], 2)
        return rows.flatten(0, 1).flatten(1), shares.flatten(0, 1).flatten(1), weight, across, down


def framed(value: Tensor, sizes: Sequence[Size]) -> Tensor:
    """Values (B, S, M, D) as a table (B, S', M, D) in float32, each map with a margin of zeros."""
    area = sum((h + 2 * MARGIN) * (w + 2 * MARGIN) for h, w in sizes)
    table = torch.zeros(len(value), area, *value.shape[2:])
    for inside, level, size in zip(insides(table, sizes), split(value, sizes), sizes, strict=True):
        inside.copy_(level.unflatten(1, size))
    return table


def insides(table: Tensor, sizes: Sequence[Size]) -> Iterator[Tensor]:
    """Views (B, h, w, M, D) of the maps in a table, without their margins."""
    frames = [(h + 2 * MARGIN, w + 2 * MARGIN) for h, w in sizes]
    for part, frame in zip(split(table, frames), frames, strict=True):
        yield part.unflatten(1, frame)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


def products(grad: Tensor, table: Tensor, rows: Tensor) -> Tensor:
    """The product of each gradient (n, D) with its rows (n, K) of a table (R, D): (n, K)."""
    (num_bags, size), flat = rows.shape, rows.flatten()
    starts = torch.arange(0, len(flat) + 1, size, dtype=rows.dtype)
    if torch.backends.mkl.is_available():  # 2.5 times as fast
        with warnings.catch_warnings():  # torch calls all its sparse tensors beta
            warnings.simplefilter("ignore")
            wanted = torch.sparse_csr_tensor(starts, flat, torch.zeros(len(flat)), (num_bags, len(table)))
        return torch.sparse.sampled_addmm(wanted, grad, table.T, beta=0).values()
    bags = torch.arange(num_bags, dtype=rows.dtype).repeat_interleave(size)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(grad, table, flat, starts[:-1], bags, 0)


def transposed_product(rows: Tensor, shares: Tensor, grad: Tensor, num_rows: int) -> Tensor:
    """What each of `num_rows` rows of a table gets from gradients (n, D), for rows and shares (n, K) each.

    scipy's product with a sparse matrix is five times as fast as sorting the rows, the fastest way in torch.
    """
    starts = torch.arange(0, rows.numel() + 1, rows.shape[1], dtype=rows.dtype)
    parts = (one.flatten().numpy() for one in (shares, rows, starts))
    return torch.from_numpy(csr_array(tuple(parts), shape=(len(rows), num_rows)).T @ grad.numpy())


sample_by_rows = operation("sample_by_rows", weighted_sums, gradients)
