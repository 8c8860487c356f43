"""Backbone features to encoded levels of a detector, for each exit.

Letters: B images, C channels, h x w the pixels of a level.
"""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from src.models.convolutions import check_groups, projection, shrinking_projection
from src.models.neck import Neck, Projected
from src.models.pixel_encoder import PixelEncoder
from src.models.position import SinePosition, shrunk_inside


class DetectionNeck(Neck):
    """Project and encode; the decoder reads levels, positions and what is inside (`Projected`).

    A stride that the backbone lacks is twice its coarsest one, made by a convolution of stride 2 (Deformable DETR,
    section 4.1). DETR has the single level of stride 32 and no norm, and no embedding that tells levels apart.

    Args:
        channels: of the backbone's features by stride.
        encoder: runs on the levels; it has as many levels as there are strides.
        strides: of the levels, coarsest first.
        position: maps a level and what is inside of it to its position.
        norm: a group norm after each projection.
        mixed_precision: as in `Neck`.
    """

    level_embed: Tensor

    def __init__(
        self,
        channels: Mapping[int, int],
        encoder: PixelEncoder,
        dim: int = 256,
        strides: Sequence[int] = (64, 32, 16, 8),
        position: SinePosition | None = None,
        norm: bool = True,
        mixed_precision: bool = False,
    ):
        coarsest = max(channels)
        possible = sorted([*channels, 2 * coarsest], reverse=True)
        if not strides or list(strides) != [stride for stride in possible if stride in strides]:
            raise ValueError(f"strides={list(strides)}: expected some of {possible}, coarsest first")
        if max(strides) < coarsest:
            warnings.warn(
                f"strides={list(strides)}: the backbone's stride {coarsest} is computed for nothing, and not trained; "
                "leave its last stage out by model.backbone.options.out_indices",
                stacklevel=2,
            )
        num_levels = encoder.active_at(encoder.depth)
        if num_levels > len(strides):
            raise ValueError(f"strides={list(strides)}: the encoder has {num_levels} active levels, expected as many")
        if norm:
            check_groups(dim)
        super().__init__(strides, dim, mixed_precision)
        self.sources = [min(stride, coarsest) for stride in strides]
        projections = (
            (projection if stride == source else shrinking_projection)(channels[source], dim)
            for stride, source in zip(strides, self.sources, strict=True)
        )
        self.input_proj = nn.ModuleList(whole if norm else whole[:1] for whole in projections)
        self.position = position or SinePosition()
        if len(strides) > 1:
            self.level_embed = nn.Parameter(torch.randn(len(strides), dim), requires_grad=encoder.reads_positions)
        else:
            self.register_buffer("level_embed", torch.zeros(1, dim), persistent=False)
        self.encoder = encoder

    def project(self, features: Mapping[int, Tensor], inside: Tensor | None = None) -> Projected:
        """Levels (B, C, h, w), coarsest first, their positions, and the pixels of each that are inside of an image."""
        levels = [project(features[source]) for source, project in zip(self.sources, self.input_proj, strict=True)]
        shrunk = shrunk_inside(inside, levels)
        own: Sequence[Tensor | None] = [None] * len(levels) if shrunk is None else shrunk
        pos = [
            self.position(level, one) + embed[:, None, None]
            for level, one, embed in zip(levels, own, self.level_embed, strict=True)
        ]
        return Projected(levels, pos, shrunk)

    def finish(self, encoded: Projected, skip: Tensor | None) -> Projected:
        """As they are."""
        return encoded
