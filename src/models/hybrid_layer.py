"""An encoder in the style of RT-DETR's: attention on the coarsest level, convolutions across levels.

Letters: B images, C channels, h x w the pixels of a level, N those of the coarsest.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.convolutions import PointwiseConv, conv_norm
from src.models.encoder_layers import GlobalEncoderLayer
from src.models.position import Places
from src.models.schedule import NUM_LEVELS


def conv_act(conv: nn.Conv2d) -> nn.Sequential:
    """A convolution, its group norm and SiLU."""
    return nn.Sequential(*conv_norm(conv), nn.SiLU(inplace=True))


def pointwise(in_dim: int, dim: int) -> nn.Sequential:
    return conv_act(PointwiseConv(in_dim, dim, bias=False))


def conv3x3(dim: int, stride: int = 1) -> nn.Sequential:
    return conv_act(nn.Conv2d(dim, dim, 3, stride, padding=1, bias=False))


class FusionBlock(nn.Module):
    """Two maps of one size to one: some 3x3 convolutions beside a 1x1 convolution, summed."""

    def __init__(self, dim: int, num_convs: int):
        super().__init__()
        self.deep = nn.Sequential(pointwise(2 * dim, dim), *(conv3x3(dim) for _ in range(num_convs)))
        self.short = pointwise(2 * dim, dim)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Map two maps (B, C, h, w) to one."""
        both = torch.cat([one, other], 1)
        return self.deep(both) + self.short(both)


class HybridLayer(nn.Module):
    """Attention on the coarsest level, then fusion from coarse to fine and back, in the style of RT-DETR (2304.08069).

    Group norms take the place of batch norms, and one 3x3 convolution that of the sum of a 3x3 and a 1x1, which RT-DETR
    trains and merges for inference.

    Args:
        num_convs: 3x3 convolutions of each fusion block.
    """

    reads_positions = True

    def __init__(self, dim: int, num_heads: int = 8, dim_feedforward: int = 1024, num_convs: int = 3):
        super().__init__()
        steps = NUM_LEVELS - 1
        self.attend = GlobalEncoderLayer(dim, 1, num_heads, 0, dim_feedforward, activation=F.gelu)
        self.lateral = nn.ModuleList(pointwise(dim, dim) for _ in range(steps))
        self.top_down = nn.ModuleList(FusionBlock(dim, num_convs) for _ in range(steps))
        self.shrink = nn.ModuleList(conv3x3(dim, stride=2) for _ in range(steps))
        self.bottom_up = nn.ModuleList(FusionBlock(dim, num_convs) for _ in range(steps))

    def forward(self, levels: Sequence[Tensor], pos: Sequence[Tensor]) -> list[Tensor]:
        """Map levels (B, C, h, w), coarsest first, with positions (C, h, w), to levels of the same shapes.

        Each level has twice the height and width of the one before.
        """
        coarsest, *finer = levels
        fused, kept = self.attended(coarsest, pos[0]), []
        for level, lateral, fuse in zip(finer, self.lateral, self.top_down, strict=True):
            kept.append(lateral(fused))
            fused = fuse(F.interpolate(kept[-1], level.shape[-2:], mode="nearest"), level)
        outputs = [fused]
        for coarser, shrink, fuse in zip(reversed(kept), self.shrink, self.bottom_up, strict=True):
            outputs.append(fuse(shrink(outputs[-1]), coarser))
        return outputs[::-1]

    def attended(self, level: Tensor, pos: Tensor) -> Tensor:
        """A level (B, C, h, w), with position (C, h, w), after attention among all its pixels."""
        tokens, places = level.flatten(2).transpose(1, 2), Places.of([level], [pos], None)  # (B, N, C)
        tokens = self.attend(tokens, slice(None), places, [level.shape[-2:]])
        return tokens.transpose(1, 2).unflatten(-1, level.shape[-2:])
