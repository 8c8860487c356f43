"""Where a token is: sine position embeddings and reference points."""

import math

import torch
from torch import Tensor


def sine_position(level: Tensor, temperature: float = 10000.0) -> Tensor:
    """Sine embedding of each pixel of a level (B, C, h, w): (C, h, w) float32, rows in the first half of the channels.

    Row and column are scaled to (0, 2 pi]; features alternate sine and cosine of falling frequency (Mask2Former).
    """
    dim, height, width = level.shape[1:]
    device = level.device
    half = dim // 2
    frequency = temperature ** (-2 * (torch.arange(half, device=device) // 2) / half)  # (C/2,)

    def embed(length: int) -> Tensor:
        place = torch.arange(1, length + 1, device=device, dtype=torch.float32) / (length + 1e-6) * 2 * math.pi
        angle = place[:, None] * frequency  # (length, C/2)
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], -1).flatten(1)  # (length, C/2)

    rows, columns = embed(height)[:, None].expand(-1, width, -1), embed(width).expand(height, -1, -1)
    return torch.cat([rows, columns], -1).permute(2, 0, 1)  # in memory (h, w, C), as tokens are


def reference_points(height: int, width: int, device: torch.device) -> Tensor:
    """Centre of each pixel of a map as (x, y) in 0..1, row by row: (height * width, 2)."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)
