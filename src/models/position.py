"""Where a token is: sine position embeddings, reference points, and what is inside of an image.

Letters: B images, C channels, L levels, N tokens of all levels, h x w the pixels of a level.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class SinePosition(NamedTuple):
    """Sine embedding of each pixel of a level, rows in the first half of the channels.

    Row and column are scaled to (0, 2 pi] of the image; features alternate sine and cosine of falling frequency.
    Mask2Former and DETR count pixels from 1, Deformable DETR from 1/2 (`offset` -0.5); DINO has the temperature 20.
    """

    temperature: float = 10000.0
    offset: float = 0.0

    def __call__(self, level: Tensor, inside: Tensor | None = None) -> Tensor:
        """A level (B, C, h, w) to (C, h, w) float32; with `inside` (B, h, w) to (B, C, h, w), scaled to each image."""
        dim, height, width = level.shape[1:]
        heights, widths = (None, None) if inside is None else valid_lengths(inside)
        rows = self.embed(height, dim // 2, heights, level.device).unsqueeze(-2)  # (..., h, 1, C/2)
        columns = self.embed(width, dim // 2, widths, level.device).unsqueeze(-3)  # (..., 1, w, C/2)
        shape = (*rows.shape[:-2], width, -1)
        return torch.cat([rows.expand(shape), columns.expand(shape)], -1).movedim(-1, -3)  # in memory (h, w, C)

    def embed(self, length: int, half: int, valid: Tensor | None, device: torch.device) -> Tensor:
        """Embeddings of the places along an axis: (length, half), or (B, length, half) for `valid` lengths (B,)."""
        place = torch.arange(1, length + 1, device=device, dtype=torch.float32) + self.offset
        place = place / ((length if valid is None else valid[:, None]) + 1e-6) * 2 * math.pi  # (..., length)
        return waves(place, half, self.temperature)


def waves(angle: Tensor, count: int, temperature: float = 10000.0) -> Tensor:
    """Alternating sines and cosines, `count` in all, of an angle times falling frequencies: (...) to (..., count)."""
    frequency = temperature ** (-2 * (torch.arange(count, device=angle.device) // 2) / count)
    angle = angle[..., None] * frequency
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2)


sine_position = SinePosition()


def reference_points(height: int, width: int, device: torch.device) -> Tensor:
    """Centre of each pixel of a map as (x, y) in 0..1, row by row: (height * width, 2)."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)


def shrunk_inside(inside: Tensor | None, levels: Sequence[Tensor]) -> list[Tensor] | None:
    """The pixels inside of their image, (B, H, W) bool, at the size of each level: (B, h, w) each; None stays None.

    Images lie at the top left, and a pixel of a level is inside if the one at its own top left is.
    """
    if inside is None:
        return None
    return [F.interpolate(inside[:, None].float(), level.shape[-2:])[:, 0].bool() for level in levels]


def valid_lengths(inside: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and the columns of each image in a level, (B,) each, from the pixels inside of it, (B, h, w)."""
    return inside[:, :, 0].sum(1), inside[:, 0].sum(1)


def valid_shares(inside: Sequence[Tensor]) -> Tensor:
    """The share of each level that is image, across and down: (B, L, 2) (Deformable DETR's valid ratios)."""
    shares = []
    for one in inside:
        rows, columns = valid_lengths(one)
        shares.append(torch.stack([columns / one.shape[2], rows / one.shape[1]], -1))
    return torch.stack(shares, 1)


class Places(NamedTuple):
    """Where the tokens of all levels are, one level after the other."""

    pos: Tensor  # position and level embedding: (N, C), or (B, N, C) where images differ in size
    reference: Tensor  # (x, y) in 0..1: (N, 2), or (B, N, L, 2) on each level
    inside: Tensor | None  # (B, N) bool, True inside of the image; None: all are

    @classmethod
    def of(cls, levels: Sequence[Tensor], pos: Sequence[Tensor], inside: Sequence[Tensor] | None) -> "Places":
        """From levels (B, C, h, w), their positions (C, h, w) or (B, C, h, w), and what is inside, (B, h, w) each."""
        all_pos = torch.cat([p.flatten(-2).transpose(-1, -2) for p in pos], -2)
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        reference = torch.cat([reference_points(h, w, levels[0].device) for h, w in sizes])
        if inside is None:
            return cls(all_pos, reference, None)
        shares = valid_shares(inside)
        own = torch.cat([shares[:, i, None].expand(-1, h * w, -1) for i, (h, w) in enumerate(sizes)], 1)  # (B, N, 2)
        # a place in its own level, then in the image, then in each of the levels
        reference = (reference / own)[:, :, None] * shares[:, None]
        return cls(all_pos, reference, torch.cat([one.flatten(1) for one in inside], 1))

    def among(self, num_images: int, num_levels: int, num_tokens: int) -> "Places":
        """Those of the first images, on the first levels, of the tokens of these."""
        pos = self.pos[..., :num_tokens, :][: num_images if self.pos.dim() == 3 else None]
        if self.inside is None:
            return Places(pos, self.reference[:num_tokens], None)
        reference = self.reference[:num_images, :num_tokens, :num_levels]
        return Places(pos, reference, self.inside[:num_images, :num_tokens])

    def queries(self, own: slice) -> tuple[Tensor, Tensor]:
        """Position and reference points of some tokens."""
        return self.pos[..., own, :], self.reference[own] if self.inside is None else self.reference[:, own]
