"""What segments or detects, from images to predictions at each exit; the parts decide what is predicted.

Letters: B images, H x W the pixels of the padded batch.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from src.models.backbone import Backbone
from src.models.encoder import check_exits
from src.models.gate import Gate, Seen, check_visible
from src.models.neck import FirstMasks, Neck
from src.weights.checkpoint import load_weights

CHECKPOINTED = ("backbone", "encoder", "decoder")  # parts whose activations may be recomputed


class Model(nn.Module):
    """Backbone, pixel decoder, decoder: the parts that `Mask2Former` and `Detector` have in common.

    Args:
        pixel_decoder, decoder, gate: called with the channels by stride, the number of classes and the exits. Without a
            gate, predictions of all exits are returned and none is chosen.
        exits: depths after which images may leave the encoder; null: its last layer.
        weights: a checkpoint to start from, ours or a published one: file, folder or hub name.
        drop_class_head: do not load the classification head of `weights`; it is trained from scratch.
        activation_checkpointing: recompute activations in the backward pass to save memory: of all layers (true), of
            none (false), or of those in some parts, a list of backbone, encoder and decoder.
        compile: compile the model with torch.compile.

    Raises ValueError for a gate with an input that the model does not have.
    """

    mean: Tensor
    std: Tensor
    divisor = 1  # the sides of a batch are padded to multiples of it
    first_masks: FirstMasks | None = None  # of models that predict masks, see `Mask2Former`

    def __init__(
        self,
        backbone: Backbone,
        pixel_decoder: Callable[..., Neck],
        decoder: Callable[..., Any],
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
            self.check_visible(self.gate.inputs)
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
        self,
        images: Tensor,
        exits: Sequence[int] | None = None,
        last_only: bool = False,
        sizes: Sequence[Sequence[int]] | None = None,
        truths: Sequence[Any] | None = None,
    ) -> dict[int, list[Any]]:
        """Return {depth: predictions}, one of each decoder layer and more in training; the last is the final one.

        Args:
            images: (B, 3, H, W), normalised.
            exits: depths; null: the model's own.
            last_only: return the final prediction alone, as inference needs no other.
            sizes: (height, width) of each image inside the padded batch; null: images fill the batch.
            truths: of the images, for decoders that are trained with them; null at inference.
        """
        features = self.backbone(images)
        memories = self.pixel_decoder(features, self.exits if exits is None else exits, self.inside(images, sizes))
        return {depth: self.read(memory, last_only, truths) for depth, memory in memories.items()}

    def leave(
        self,
        images: Tensor,
        choose: Callable[[Seen], list[int]] | None = None,
        after: int = 0,
        sizes: Sequence[Sequence[int]] | None = None,
    ) -> tuple[Any, list[int]]:
        """Return the final prediction and the depth (B,) at which each image left the encoder.

        Args:
            images: (B, 3, H, W), normalised.
            choose: what has been seen of the images to the depth of each; None: the gate chooses.
            after: layers that all images run before `choose` is called; a gate has its own.
            sizes: as in `forward`.

        Raises ValueError if `choose` is None and the model has no gate.
        """
        if choose is None:
            if self.gate is None:
                raise ValueError(
                    "model.gate=null: expected a gate, which chooses the exit of each image; set model/gate"
                )
            choose, after = self.gate.choose, self.gate.after
        inside = self.inside(images, sizes)
        memory, depths = self.pixel_decoder.leave(self.backbone(images), choose, after, self.first_masks, inside)
        (prediction,) = self.read(memory, last_only=True)
        return prediction, depths

    def read(self, memory: Sequence[Any], last_only: bool = False, truths: Sequence[Any] | None = None) -> list[Any]:
        """Predictions of the decoder from what the pixel decoder gave for an exit; decoders take no truths here."""
        return self.decoder(*memory, last_only=last_only)

    def inside(self, images: Tensor, sizes: Sequence[Sequence[int]] | None) -> Tensor | None:
        """Which pixels belong to an image, (B, H, W) bool; None: padding is treated as image, as here."""
        return None

    def check_visible(self, inputs: Sequence[str]) -> None:
        """Raise ValueError for a gate input that this model does not have."""
        check_visible(inputs, self.pixel_decoder.strides, self.first_masks is not None)

    @classmethod
    def padded(cls, size: Sequence[int]) -> tuple[int, ...]:
        """Return (height, width) rounded up to multiples of the divisor."""
        return tuple(-(-side // cls.divisor) * cls.divisor for side in size)

    def preprocess(self, images: Sequence[Tensor]) -> Tensor:
        """Normalise images (3, h, w), RGB in 0..255, and pad them with zeros to one batch (B, 3, H, W)."""
        heights, widths = zip(*(self.padded(image.shape[-2:]) for image in images), strict=True)
        height, width = max(heights), max(widths)
        normalised = ((image - self.mean) / self.std for image in images)
        return torch.stack([F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2])) for x in normalised])
