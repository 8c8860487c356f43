"""The encoder's tokens as a decoder of queries reads them, and the boxes that they propose.

Letters: B images, S tokens of all levels, L levels, C channels, h x w the pixels of a level.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.models.position import reference_points, valid_shares
from src.models.sampling import Size

SIDE = 0.05  # of a proposal on the finest level, in 0..1 of the image; it doubles from level to level
MARGIN = 0.01  # proposals whose numbers are not all between it and 1 - it are dropped


class Memory(NamedTuple):
    """The tokens of all levels, one level after the other, coarsest first."""

    tokens: Tensor  # (B, S, C)
    sizes: list[Size]  # (h, w) of each level
    inside: Tensor | None  # (B, S) bool, True inside the image; None: all are
    shares: Tensor  # (B or 1, L, 2), how much of each level's width and height its image takes, in 0..1

    @classmethod
    def of(cls, levels: Sequence[Tensor], inside: Sequence[Tensor] | None) -> "Memory":
        """From levels (B, C, h, w) and their pixels inside the image, (B, h, w) bool each; None: all."""
        tokens = torch.cat([level.flatten(2).mT for level in levels], 1)
        sizes: list[Size] = [(level.shape[-2], level.shape[-1]) for level in levels]
        if inside is None:
            return cls(tokens, sizes, None, tokens.new_ones(1, len(sizes), 2, dtype=torch.float32))
        return cls(tokens, sizes, torch.cat([i.flatten(1) for i in inside], 1), valid_shares(inside))

    def placed(self, reference: Tensor) -> Tensor:
        """Points (B, Q, 2) or boxes (B, Q, 4) in 0..1 of the image as such in 0..1 of each level, (B, Q, L, 2 or 4)."""
        shares = self.shares.repeat(1, 1, reference.shape[-1] // 2)  # (B, L, 2 or 4)
        return reference[:, :, None] * shares[:, None]


class Proposals(nn.Module):
    """Every token proposes a box around itself (Deformable DETR, section A.4)."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Features that heads read, (B, S, C), and the boxes around the tokens as logits, (B, S, 4).

        Tokens outside the image or near its edge propose nothing: their features are those of zeros, and their logits
        are infinite, so that they stay what they are whatever is added.
        """
        boxes = token_boxes(memory)
        valid = ((boxes > MARGIN) & (boxes < 1 - MARGIN)).all(-1, keepdim=True)  # (B or 1, S, 1)
        if memory.inside is not None:
            valid = valid & memory.inside[..., None]
        features = self.norm(self.linear(memory.tokens.masked_fill(~valid, 0.0)))
        return features, torch.logit(boxes).masked_fill(~valid, float("inf"))


def token_boxes(memory: Memory) -> Tensor:
    """A square around each token, in 0..1 of its image: (B or 1, S, 4), centre x, centre y, width, height."""
    parts = []
    for place, size in enumerate(memory.sizes):
        centre = reference_points(*size, memory.tokens.device) / memory.shares[:, place, None]  # (B or 1, h * w, 2)
        side = SIDE * 2 ** (len(memory.sizes) - 1 - place)
        parts.append(torch.cat([centre, torch.full_like(centre, side)], -1))
    return torch.cat(parts, 1)
