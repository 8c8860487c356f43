"""The whole model, from images to predictions at each exit."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from src.models.backbone import Backbone
from src.models.encoder import check_exits
from src.models.gate import Gate, Seen
from src.models.pixel_decoder import PixelDecoder
from src.models.transformer_decoder import Prediction, TransformerDecoder
from src.weights.checkpoint import load_weights

DIVISOR = 32  # the coarsest stride
CHECKPOINTED = ("backbone", "encoder", "decoder")  # parts whose activations may be recomputed


class Mask2Former(nn.Module):
    """Backbone, pixel decoder, transformer decoder (Mask2Former, figure 2).

    Args:
        pixel_decoder, decoder, gate: called with the channels by stride, the number of classes and the exits. Without a
            gate, predictions of all exits are returned and none is chosen.
        exits: depths after which images may leave the encoder; null: its last layer.
        weights: a checkpoint to start from, ours or a published one: file, folder or hub name.
        drop_class_head: do not load the classification head of `weights`; it is trained from scratch.
        activation_checkpointing: recompute activations in the backward pass to save memory: of all layers (true), of
            none (false), or of those in some parts, a list of backbone, encoder and decoder.
        compile: compile the model with torch.compile.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        pixel_decoder: Callable[..., PixelDecoder],
        decoder: Callable[..., TransformerDecoder],
        num_classes: int,
        exits: Sequence[int] | None = None,
        gate: Callable[..., Gate] | None = None,
        weights: str | None = None,
        drop_class_head: bool = False,
        activation_checkpointing: bool | Sequence[str] = False,
        compile: bool = False,
    ):
        super().__init__()
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder(channels=backbone.channels)
        self.decoder = decoder(num_classes=num_classes)
        self.exits = check_exits(exits, self.pixel_decoder.encoder.depth)
        self.gate = None if gate is None else gate(exits=self.exits)
        self.register_buffer("mean", torch.tensor(backbone.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std)[:, None, None], persistent=False)
        for layer in self.pixel_decoder.encoder.layers[self.exits[-1] :]:
            layer.requires_grad_(False)  # they never run, and DDP would wait for their gradients
        if self.gate is not None:
            self.gate.requires_grad_(False)  # the gate is trained separately
        if weights is not None:
            load_weights(self, weights, drop_class_head)
        parts = CHECKPOINTED if activation_checkpointing is True else activation_checkpointing or ()
        if "backbone" in parts:
            backbone.set_grad_checkpointing()
        for part, layers in (("encoder", self.pixel_decoder.encoder.layers), ("decoder", self.decoder.layers)):
            for layer in layers if part in parts else ():
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        if compile:
            self.compile()

    def forward(
        self, images: Tensor, exits: Sequence[int] | None = None, last_only: bool = False
    ) -> dict[int, list[Prediction]]:
        """Return {depth: one Prediction per decoder layer}; the last layer's is the final prediction.

        Args:
            images: (B, 3, H, W), normalised.
            exits: depths; null: the model's own.
            last_only: return the final prediction alone, as inference needs no other.
        """
        features = self.backbone(images)
        memories = self.pixel_decoder(features, self.exits if exits is None else exits)
        return {depth: self.decoder(*memory, last_only) for depth, memory in memories.items()}

    def leave(
        self, images: Tensor, choose: Callable[[Seen], list[int]] | None = None, after: int = 0
    ) -> tuple[Prediction, list[int]]:
        """Return the final prediction and the depth (B,) at which each image left the encoder.

        Args:
            images: (B, 3, H, W), normalised.
            choose: what has been seen of the images to the depth of each; None: the gate chooses.
            after: layers that all images run before `choose` is called; a gate has its own.

        Raises ValueError if `choose` is None and the model has no gate.
        """
        if choose is None:
            if self.gate is None:
                raise ValueError(
                    "model.gate=null: expected a gate, which chooses the exit of each image; set model/gate"
                )
            choose, after = self.gate.choose, self.gate.after
        memory, depths = self.pixel_decoder.leave(self.backbone(images), choose, after, self.first_masks)
        (prediction,) = self.decoder(*memory, last_only=True)
        return prediction, depths

    def first_masks(self, mask_features: Tensor) -> Tensor:
        """Masks of the decoder's initial queries, before any of its layers: (B, C, h, w) to logits (B, Q, h, w)."""
        _, kernels = self.decoder.read(self.decoder.query_feat.weight)  # (Q, C), the same for every image
        return (kernels @ mask_features.flatten(2)).unflatten(-1, mask_features.shape[-2:])

    @staticmethod
    def padded(size: Sequence[int]) -> tuple[int, ...]:
        """Return (height, width) rounded up to multiples of the coarsest stride."""
        return tuple(-(-side // DIVISOR) * DIVISOR for side in size)

    def preprocess(self, images: Sequence[Tensor]) -> Tensor:
        """Normalise images (3, h, w), RGB in 0..255, and pad them with zeros to one batch (B, 3, H, W)."""
        heights, widths = zip(*(self.padded(image.shape[-2:]) for image in images), strict=True)
        height, width = max(heights), max(widths)
        normalised = ((image - self.mean) / self.std for image in images)
        return torch.stack([F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2])) for x in normalised])
