"""Backbone features to mask features and three encoded levels, for each exit.

Letters: B images, C channels, H x W the input's pixels.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.convolutions import NUM_GROUPS, PointwiseConv, check_groups, conv_norm, projection
from src.models.neck import Neck, Projected
from src.models.pixel_encoder import PixelEncoder
from src.models.pooling import MaxPool3x3
from src.models.position import sine_position

STRIDES = [32, 16, 8]


class ConvPixelEmbedding(nn.Sequential):
    """Mask2Former's smoothing of the stride 4 map: 3x3 convolution, norm, ReLU."""

    def __init__(self, dim: int):
        super().__init__(*conv_norm(nn.Conv2d(dim, dim, 3, padding=1, bias=False)), nn.ReLU(inplace=True))


class LightPixelEmbedding(nn.Sequential):
    """PRO-SCALE's light pixel embedding: a 3x3 max-pool in place of the convolution, resolution kept."""

    def __init__(self, dim: int):
        super().__init__(MaxPool3x3(), nn.GroupNorm(NUM_GROUPS, dim), nn.ReLU(inplace=True))


class DepthwisePixelEmbedding(nn.Sequential):
    """A 3x3 convolution of each channel by itself, norm, ReLU: what may take the place of PRO-SCALE's max-pool."""

    def __init__(self, dim: int):
        conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        super().__init__(*conv_norm(conv), nn.ReLU(inplace=True))


class PixelDecoder(Neck):
    """Project, encode, and fuse with stride 4 (Mask2Former, section 3.2; PRO-SCALE, figure 2).

    What the decoder reads are mask features (B, C, H/4, W/4) and the levels. Padding is treated as image, as published.

    Args:
        channels: of the backbone's features by stride.
        encoder: runs on strides 32, 16, 8.
        pixel_embedding: smooths the stride 4 map.
        mixed_precision: False, as published, computes in float32 also under autocast.

    Raises ValueError for a backbone that lacks a stride.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        encoder: PixelEncoder,
        pixel_embedding: Callable[[int], nn.Module],
        dim: int = 256,
        mixed_precision: bool = False,
    ):
        check_groups(dim)
        if lacking := [stride for stride in (*STRIDES, 4) if stride not in channels]:
            raise ValueError(f"the backbone has no features at strides {lacking}, which the pixel decoder reads")
        super().__init__(STRIDES, dim, mixed_precision)
        self.input_proj = nn.ModuleList(projection(channels[stride], dim) for stride in self.strides)
        self.level_embed = nn.Parameter(torch.randn(len(self.strides), dim), requires_grad=encoder.reads_positions)
        self.encoder = encoder
        self.lateral = conv_norm(PointwiseConv(channels[4], dim, bias=False))
        self.pixel_embedding = pixel_embedding(dim)
        self.mask_features = PointwiseConv(dim, dim)
        nn.init.kaiming_uniform_(self.mask_features.weight, a=1)
        nn.init.constant_(self.mask_features.bias, 0.0)  # type: ignore[arg-type]

    def project(self, features: Mapping[int, Tensor], inside: Tensor | None = None) -> Projected:
        """Levels (B, C, h, w), coarsest first, and the position of each (C, h, w)."""
        levels = [project(features[stride]) for stride, project in zip(self.strides, self.input_proj, strict=True)]
        return self.placed(levels)

    def placed(self, levels: list[Tensor]) -> Projected:
        """Levels (B, C, h, w), coarsest first, with the position of each (C, h, w), which follows from its size."""
        pos = [
            sine_position(level) + embed[:, None, None] for level, embed in zip(levels, self.level_embed, strict=True)
        ]
        return Projected(levels, pos)

    def skip(self, features: Mapping[int, Tensor]) -> Tensor:
        """The stride 4 map before it is fused, (B, C, H/4, W/4)."""
        return self.lateral(features[4])

    def finish(self, encoded: Projected, skip: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Mask features (B, C, H/4, W/4) and the levels."""
        assert skip is not None
        return self.fuse(skip, encoded.levels[-1]), encoded.levels

    def coarse_features(self, skip: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """Mask features of stride 16, (B, C, H/16, W/16): the stride 4 map is shrunk before it is fused.

        They differ from shrunk mask features, whose convolution sees a smaller neighbourhood, and cost a sixteenth.
        """
        size = levels[self.strides.index(16)].shape[-2:]
        return self.fuse(F.interpolate(skip, size, mode="area"), levels[-1])

    def fuse(self, lateral: Tensor, finest: Tensor) -> Tensor:
        """The stride 4 map plus the encoded stride 8 level, as mask features (B, C, H/4, W/4)."""
        finest = finest.clone(memory_format=torch.channels_last)  # a level among others has gaps between images
        upsampled = F.interpolate(finest, lateral.shape[-2:], mode="bilinear", align_corners=False)
        return self.mask_features(self.pixel_embedding(upsampled.add_(lateral)))
