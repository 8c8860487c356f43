"""A detector: images to boxes at each exit.

Letters: B images, H x W the pixels of the padded batch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from src.models.model import Model


class Detector(Model):
    """Backbone, detection neck, decoder (DETR, figure 2; Deformable DETR, DINO), with padding kept out of attention.

    Arguments as `Model`: a `DetectionNeck`, and a decoder of boxes, which is called with levels, positions and which of
    their pixels are inside, `last_only` and `truths`. Each prediction is a `BoxPrediction`.
    """

    def read(self, memory: Sequence[Any], last_only: bool = False, truths: Sequence[Any] | None = None) -> list[Any]:
        """Predictions of the decoder from what the neck gave for an exit; truths are for denoising queries."""
        return self.decoder(*memory, last_only=last_only, truths=truths)

    def inside(self, images: Tensor, sizes: Sequence[Sequence[int]] | None) -> Tensor | None:
        """Which pixels belong to an image, (B, H, W) bool; None: all do."""
        if sizes is None or all(tuple(size) == tuple(images.shape[-2:]) for size in sizes):
            return None
        inside = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool, device=images.device)
        for image, (height, width) in zip(inside, sizes, strict=True):
            image[:height, :width] = True
        return inside
