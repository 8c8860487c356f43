"""Values of masks at points: truth read from the integer map, predictions sampled bilinearly.

Letters: B images, L layers of the integer map, M sets of P points, N segments of each, H x W pixels. Points are (x, y)
in 0..1.
"""

from collections.abc import Sequence
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.position import reference_points
from src.models.postprocess import Frame


def sample_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (M, C, h, w) bilinearly at points (M, P, 2), zero outside: (M, C, P)."""
    return F.grid_sample(maps, points.mul(2).sub_(1)[:, None], align_corners=False)[:, :, 0]


def sample_segments(segments: Tensor, image: Tensor, numbers: Tensor, points: Tensor) -> Tensor:
    """Truth masks at points, equal to bilinear samples of each binary mask: (M, N, P) in 0..1.

    Args:
        segments: (B, L, H, W), n where the n-th segment of the image lies in that layer.
        image: (M,), which image.
        numbers: (M, N), which of its segments, from 1. The map is read once for all of them.
        points: (M, P, 2).
    """
    num_layers, height, width = segments.shape[1:]
    x, y = points[..., 0] * width - 0.5, points[..., 1] * height - 0.5  # (M, P)
    left, top = x.floor(), y.floor()
    layer = image[:, None] * num_layers + torch.arange(num_layers, device=points.device)  # (M, L)
    total = x.new_zeros(*numbers.shape, x.shape[1])
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = left + dx, top + dy
            share = (1 - (x - column).abs()) * (1 - (y - row).abs())
            share = share * ((column >= 0) & (column < width) & (row >= 0) & (row < height))
            pixel = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()  # (M, P)
            ids = segments.flatten()[layer[..., None] * (height * width) + pixel[:, None]]  # (M, L, P)
            total = total + share[:, None] * (ids[:, None] == numbers[:, :, None, None]).any(2)
    return total


def stack_segments(segments: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Stack integer maps (L_b, h, w) into one tensor (B, L, H, W), padded with 0 for "no segment"."""
    num_layers = max(len(layers) for layers in segments)
    return torch.stack(
        [
            F.pad(layers, (0, size[1] - layers.shape[2], 0, size[0] - layers.shape[1], 0, num_layers - len(layers)))
            for layers in segments
        ]
    )


def pixels(mask_logits: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Return centres of the pixels of masks (Q, h, w) inside the image: (P, 2) in 0..1 of it, and of the batch."""
    shares = [size / padded for size, padded in zip(frame.resized, frame.padded, strict=True)]
    height, width = (ceil(share * side) for share, side in zip(shares, mask_logits.shape[-2:], strict=True))
    points = reference_points(height, width, mask_logits.device)
    return points, points * points.new_tensor(shares[::-1])


def uncertain_points(logits: Tensor, num_points: int, oversample_ratio: float, importance_share: float) -> Tensor:
    """Points (M, P, 2) where the masks (M, h, w) are least certain, and some at random (PointRend, section 3.1)."""
    num_candidates = int(num_points * oversample_ratio)
    num_important = int(num_points * importance_share)
    candidates = torch.rand(len(logits), num_candidates, 2, device=logits.device)
    doubt = -sample_maps(logits[:, None], candidates)[:, 0].abs()
    best = doubt.topk(num_important, 1, sorted=False).indices
    important = candidates.gather(1, best[..., None].expand(-1, -1, 2))
    return torch.cat([important, torch.rand(len(logits), num_points - num_important, 2, device=logits.device)], 1)
