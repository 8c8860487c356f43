"""Images and maps of several sizes side by side."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.mask2former import Mask2Former


def like_sized(images: Sequence[Tensor]) -> list[list[int]]:
    """Places of images by their padded size: padded no further, none depends on what it stands beside."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(Mask2Former.padded(image.shape[-2:]), []).append(place)
    return list(groups.values())


def stack_segments(segments: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Integer maps (L_b, h, w) to one (B, L, H, W), nothing where an image has no pixels or fewer layers."""
    num_layers = max(len(layers) for layers in segments)
    return torch.stack(
        [
            F.pad(layers, (0, size[1] - layers.shape[2], 0, size[0] - layers.shape[1], 0, num_layers - len(layers)))
            for layers in segments
        ]
    )
