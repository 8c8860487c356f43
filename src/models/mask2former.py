"""Mask2Former: images to masks at each exit."""

from torch import Tensor

from src.models.model import Model


class Mask2Former(Model):
    """Backbone, pixel decoder, transformer decoder (Mask2Former, figure 2); padding is treated as image, as published.

    Arguments as `Model`: a `PixelDecoder` and a `TransformerDecoder`. Each prediction is a `Prediction`.
    """

    divisor = 32  # the coarsest stride

    def first_masks(self, mask_features: Tensor) -> Tensor:  # type: ignore[override]
        """Masks of the decoder's initial queries, before any of its layers: (B, C, h, w) to logits (B, Q, h, w)."""
        _, kernels = self.decoder.read(self.decoder.query_feat.weight)  # (Q, C), the same for every image
        return (kernels @ mask_features.flatten(2)).unflatten(-1, mask_features.shape[-2:])
