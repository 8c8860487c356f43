"""The whole model: images to one list of predictions per exit."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from src.models.backbone import Backbone
from src.models.encoder import check_exits
from src.models.gate import Gate
from src.models.pixel_decoder import PixelDecoder
from src.models.transformer_decoder import Prediction, TransformerDecoder
from src.weights.checkpoint import load_weights

DIVISOR = 32  # the coarsest stride


class Mask2Former(nn.Module):
    """Backbone, pixel decoder, transformer decoder (Mask2Former, figure 2).

    Args:
        pixel_decoder, decoder, gate: take what the others determine, the channels by stride, the number of classes and
            the exits. Without a gate the exits stand side by side, and none is chosen.
        exits: depths the encoder may be left at; null: its last layer.
        weights: a checkpoint to start from, ours or a published one: file, folder or hub name.
        drop_class_head: of those weights, leave out what tells classes apart; it is learnt anew.
        activation_checkpointing: trade time for memory in backbone, encoder and decoder.
        compile: run as compiled by torch.
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
        activation_checkpointing: bool = False,
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
            layer.requires_grad_(False)  # it never runs, and several processes would wait for its gradient
        if self.gate is not None:
            self.gate.requires_grad_(False)  # nor does the gate here: it is trained by itself
        if weights is not None:
            load_weights(self, weights, drop_class_head)
        if activation_checkpointing:
            backbone.set_grad_checkpointing()
            for layer in [*self.pixel_decoder.encoder.layers, *self.decoder.layers]:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        if compile:
            self.compile()

    def forward(self, images: Tensor, exits: Sequence[int] | None = None) -> dict[int, list[Prediction]]:
        """Masks for every exit asked for: {depth: one Prediction per decoder layer, the last the answer}.

        Args:
            images: (B, 3, H, W), normalised.
            exits: depths; null: the model's own.
        """
        features = self.backbone(images)
        memories = self.pixel_decoder(features, self.exits if exits is None else exits)
        return {depth: self.decoder(*memory) for depth, memory in memories.items()}

    def leave(
        self, images: Tensor, choose: Callable[[list[Tensor]], list[int]] | None = None
    ) -> tuple[list[Prediction], list[int]]:
        """One Prediction per decoder layer, and the depth (B,) at which each image left the encoder.

        Args:
            images: (B, 3, H, W), normalised.
            choose: projected levels (B, C, h, w), coarsest first, to the depth of each image; null: as the gate says.

        Raises ValueError where there is no gate to ask.
        """
        if choose is None:
            if self.gate is None:
                raise ValueError("model.gate: the model has none, so nothing chooses an exit; expected one")
            choose = self.gate.choose
        memory, depths = self.pixel_decoder.leave(self.backbone(images), choose)
        return self.decoder(*memory), depths

    def preprocess(self, images: Sequence[Tensor]) -> Tensor:
        """Images (3, h, w), RGB in 0..255, to one normalised batch (B, 3, H, W), zeros at the right and bottom."""
        height = max(-(-image.shape[-2] // DIVISOR) * DIVISOR for image in images)
        width = max(-(-image.shape[-1] // DIVISOR) * DIVISOR for image in images)
        normalised = ((image - self.mean) / self.std for image in images)
        return torch.stack([F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2])) for x in normalised])
