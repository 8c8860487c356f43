"""Batches of images and maps that differ in size."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.mask2former import Mask2Former

if TYPE_CHECKING:
    from src.data.targets import Batch


def like_sized(images: Sequence[Tensor]) -> list[list[int]]:
    """Group the indices of images by padded size, so that no image is padded further because of another one."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(Mask2Former.padded(image.shape[-2:]), []).append(place)
    return list(groups.values())


def stack_segments(segments: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Stack integer maps (L_b, h, w) into one tensor (B, L, H, W), padded with 0 for "no segment"."""
    num_layers = max(len(layers) for layers in segments)
    return torch.stack(
        [
            F.pad(layers, (0, size[1] - layers.shape[2], 0, size[0] - layers.shape[1], 0, num_layers - len(layers)))
            for layers in segments
        ]
    )


def mirror(batch: "Batch") -> "Batch":
    """Exchange left and right in all images and their truth."""
    truths = [truth._replace(segments=truth.segments.flip(-1)) for truth in batch.truths]
    return batch._replace(images=[image.flip(-1) for image in batch.images], truths=truths)
