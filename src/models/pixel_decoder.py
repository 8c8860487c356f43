"""Backbone features to mask features and three encoded levels, for each exit.

Letters: B images, C channels, H x W the input's pixels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.gate import LEVELS, Seen
from src.models.pixel_encoder import PixelEncoder
from src.models.pooling import MaxPool3x3
from src.models.position import sine_position

NUM_GROUPS = 32  # of every group norm
STRIDE16 = LEVELS[16]

FirstMasks = Callable[[Tensor], Tensor]  # mask features (B, C, h, w) to logits (B, Q, h, w), see `Mask2Former`


class PointwiseConv(nn.Conv2d):
    """1x1 convolution as a linear layer over channels: one matrix product, where channels are last in memory.

    Torch's own is up to five times slower there in training on CPUs.
    """

    def __init__(self, in_dim: int, dim: int, bias: bool = True):
        super().__init__(in_dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def conv_norm(conv: nn.Conv2d) -> nn.Sequential:
    """A convolution and its group norm, the convolution initialised as detectron2's c2_xavier."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.GroupNorm(NUM_GROUPS, conv.out_channels))


def projection(in_dim: int, dim: int) -> nn.Sequential:
    """1x1 convolution with bias and group norm, from a feature of the backbone to a level."""
    conv = PointwiseConv(in_dim, dim)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.constant_(conv.bias, 0.0)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.GroupNorm(NUM_GROUPS, dim))


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


class PixelDecoder(nn.Module):
    """Project, encode, and fuse with stride 4 (Mask2Former, section 3.2; PRO-SCALE, figure 2).

    Args:
        channels: of the backbone's features by stride.
        encoder: runs on strides 32, 16, 8.
        pixel_embedding: smooths the stride 4 map.
        mixed_precision: False, as published, computes in float32 also under autocast.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        encoder: PixelEncoder,
        pixel_embedding: Callable[[int], nn.Module],
        dim: int = 256,
        mixed_precision: bool = False,
    ):
        super().__init__()
        if dim % NUM_GROUPS:
            raise ValueError(f"dim={dim}: expected a multiple of {NUM_GROUPS}, the groups of the norms")
        *_, finest = self.strides = [32, 16, 8]
        self.input_proj = nn.ModuleList(projection(channels[stride], dim) for stride in self.strides)
        self.level_embed = nn.Parameter(torch.randn(len(self.strides), dim), requires_grad=encoder.reads_positions)
        self.encoder = encoder
        self.lateral = conv_norm(PointwiseConv(channels[finest // 2], dim, bias=False))
        self.pixel_embedding = pixel_embedding(dim)
        self.mask_features = PointwiseConv(dim, dim)
        nn.init.kaiming_uniform_(self.mask_features.weight, a=1)
        nn.init.constant_(self.mask_features.bias, 0.0)  # type: ignore[arg-type]
        self.mixed_precision = mixed_precision

    def forward(
        self, features: Mapping[int, Tensor], exits: Sequence[int] | None = None
    ) -> dict[int, tuple[Tensor, list[Tensor]]]:
        """Features by stride to {depth: (mask features (B, C, H/4, W/4), levels of strides 32, 16, 8)}."""
        with self.precision(features) as features:
            return self.encode(*self.project(features), self.lateral(features[4]), exits)

    def encode(
        self, levels: list[Tensor], pos: list[Tensor], lateral: Tensor, exits: Sequence[int] | None = None
    ) -> dict[int, tuple[Tensor, list[Tensor]]]:
        """As `forward`, from levels, positions and a stride 4 map that are already projected."""
        memories = self.encoder(levels, pos, exits)
        return {depth: (self.fuse(lateral, levels[-1]), levels) for depth, levels in memories.items()}

    def leave(
        self, features: Mapping[int, Tensor], choose: Callable[[Seen], list[int]], after: int, first_masks: FirstMasks
    ) -> tuple[tuple[Tensor, list[Tensor]], list[int]]:
        """Mask features and levels, each image's after the depth that `choose` gives for it, and these depths.

        All images run `after` layers; `choose` is called with what there is to see then (`look`).
        """
        with self.precision(features) as features:
            levels, pos = self.project(features)
            lateral = self.lateral(features[4])
            seen = self.look(levels, pos, lateral, after, first_masks)
            depths = choose(seen)
            levels = self.encoder.leave(seen.latest, pos, depths, after)
            return (self.fuse(lateral, levels[-1]), levels), depths

    def look(
        self, levels: list[Tensor], pos: list[Tensor], lateral: Tensor, after: int, first_masks: FirstMasks
    ) -> Seen:
        """What a gate sees after so many layers, which run here."""
        earlier = latest = levels
        for _, memory in self.encoder.run(levels, pos, [len(levels[0])] * after):
            earlier, latest = latest, memory
        return Seen(levels, earlier, latest, lambda: first_masks(self.coarse_features(lateral, latest)))

    def coarse_features(self, lateral: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """Mask features of stride 16, (B, C, H/16, W/16): the stride 4 map is shrunk before it is fused.

        They differ from shrunk mask features, whose convolution sees a smaller neighbourhood, and cost a sixteenth.
        """
        return self.fuse(F.interpolate(lateral, levels[STRIDE16].shape[-2:], mode="area"), levels[-1])

    @contextmanager
    def precision(self, features: Mapping[int, Tensor]) -> Iterator[Mapping[int, Tensor]]:
        """A context with the precision of the pixel decoder, and the features in it, in memory (B, h, w, C).

        Channels last is the layout of tokens, so that levels become tokens without a copy; pooling, convolutions and
        resizes are as fast or faster in it (the light pixel embedding four times).
        """
        device_type = features[4].device.type
        possible = torch.amp.is_autocast_available(device_type)  # not on the meta device
        enabled = possible and torch.is_autocast_enabled(device_type)
        mixed = enabled and self.mixed_precision
        with torch.autocast(device_type, enabled=False) if enabled and not mixed else nullcontext():
            yield {
                stride: (feature if mixed else feature.float()).contiguous(memory_format=torch.channels_last)
                for stride, feature in features.items()
            }

    def project(self, features: Mapping[int, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Levels (B, C, h, w), coarsest first, and the position of each (C, h, w)."""
        levels = [project(features[stride]) for stride, project in zip(self.strides, self.input_proj, strict=True)]
        pos = [
            sine_position(level) + embed[:, None, None] for level, embed in zip(levels, self.level_embed, strict=True)
        ]
        return levels, pos

    def fuse(self, lateral: Tensor, finest: Tensor) -> Tensor:
        """The stride 4 map plus the encoded stride 8 level, as mask features (B, C, H/4, W/4)."""
        finest = finest.clone(memory_format=torch.channels_last)  # a level among others has gaps between images
        upsampled = F.interpolate(finest, lateral.shape[-2:], mode="bilinear", align_corners=False)
        return self.mask_features(self.pixel_embedding(upsampled.add_(lateral)))
