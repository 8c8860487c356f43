"""No encoder at all: the feature pyramid with which Mask2Former's paper compares its pixel decoder.

Letters: B images, C channels, h x w the pixels of a level.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from src.models.pixel_decoder import ConvPixelEmbedding
from src.models.schedule import NUM_LEVELS


class FeaturePyramid(nn.Module):
    """Top-down sums, each smoothed by a 3x3 convolution (FPN, arXiv 1612.03144, as in MaskFormer's pixel decoder)."""

    reads_positions = False

    def __init__(self, dim: int):
        super().__init__()
        self.smooth = nn.ModuleList(ConvPixelEmbedding(dim) for _ in range(NUM_LEVELS))

    def forward(self, levels: Sequence[Tensor], pos: Sequence[Tensor]) -> list[Tensor]:
        """Map levels (B, C, h, w), coarsest first, to levels of the same shapes; positions are not used."""
        coarsest, *finer = levels
        outputs = [self.smooth[0](coarsest)]
        for level, smooth in zip(finer, self.smooth[1:], strict=True):
            outputs.append(smooth(level + F.interpolate(outputs[-1], level.shape[-2:], mode="nearest")))
        return outputs
