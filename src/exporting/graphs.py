"""The parts that exported graphs are put together from, as modules with named tensors in and out.

    trunk      images -> level_32, level_16, level_8, skip [, scores]
    positions  levels -> position_32, position_16, position_8
    layers     levels, positions -> levels, some encoder layers later
    head       levels, skip -> class_logits, mask_logits

A tail is positions, the layers up to its exit, and the head; a whole model begins with the trunk. Each part is traced
once, however many exits there are. Letters: B images, C channels, Q queries, K classes, E exits, H x W an image's
pixels, h x w those of a level.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn

from src.models.attention import DeformableAttention
from src.models.mask2former import Mask2Former

LEVELS = ("level_32", "level_16", "level_8")  # (B, C, h, w) each
POSITIONS = ("position_32", "position_16", "position_8")  # (C, h, w) each
ANSWERS = ("class_logits", "mask_logits")  # (B, Q, K + 1) and (B, Q, H/4, W/4)
STRIDES = {"images": 1, "skip": 4} | {
    f"{kind}_{stride}": stride for kind in ("level", "position") for stride in (32, 16, 8)
}


class Part(NamedTuple):
    """A module to trace, and what its inputs and outputs are called."""

    name: str
    module: nn.Module
    inputs: Sequence[str]
    outputs: Sequence[str]


class Trunk(nn.Module):
    """What every image runs: backbone, projections, the layers before the gate, the gate."""

    def __init__(self, model: Mask2Former, gated: bool):
        super().__init__()
        self.model, self.gated = model, gated

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images (B, 3, H, W) to levels, skip (B, C, H/4, W/4) and, with a gate, scores (B, E)."""
        neck: Any = self.model.pixel_decoder
        gate, features = self.model.gate, self.model.backbone(images)
        projected, skip = neck.project(features), neck.skip(features)
        if not self.gated or gate is None:
            return *projected.levels, skip
        earlier, latest = neck.run(projected, gate.after)
        return *latest, skip, gate(neck.see(projected, earlier, latest, skip, self.model.first_masks))


class Positions(nn.Module):
    """The positions of levels, which follow from their sizes."""

    def __init__(self, pixel_decoder: Any):
        super().__init__()
        self.pixel_decoder = pixel_decoder

    def forward(self, *levels: Tensor) -> tuple[Tensor, ...]:
        """Levels to a position (C, h, w) for each."""
        return tuple(self.pixel_decoder.placed(list(levels)).pos)


class Layers(nn.Module):
    """The encoder layers from one depth to another."""

    def __init__(self, encoder: Any, start: int, stop: int):
        super().__init__()
        self.encoder, self.start, self.stop = encoder, start, stop

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Levels after `start` layers, then positions, to the levels after `stop` layers."""
        levels, pos = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
        running = [levels[0].shape[0]] * (self.stop - self.start)
        *_, (_, latest) = self.encoder.run(list(levels), list(pos), running, self.start)
        return tuple(latest)


class Head(nn.Module):
    """What comes after the encoder: fusion with stride 4, and the decoder."""

    def __init__(self, model: Mask2Former):
        super().__init__()
        self.model = model

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Levels and skip to class logits and mask logits of the last decoder layer."""
        *levels, skip = tensors
        neck: Any = self.model.pixel_decoder
        (prediction,) = self.model.decoder(*neck.finish(neck.placed(levels), skip), last_only=True)
        return tuple(prediction)


class Parts(NamedTuple):
    """All parts of a model; an exit's layers are the first ones of `layers` that end there."""

    trunk: Part
    positions: Part
    layers: dict[int, Part]  # by the exit at which they end, shallowest first
    head: Part
    after: int  # layers in the trunk

    def tail(self, exit_: int) -> list[Part]:
        """The parts from the trunk's outputs to the answers of an exit."""
        return [self.positions, *(part for depth, part in self.layers.items() if depth <= exit_), self.head]


def parts_of(model: Mask2Former, exits: Sequence[int], gated: bool) -> Parts:
    """The parts of a model that is not changed; the copy in them samples by gathering.

    Raises ValueError for an exit before the layers after which the gate looks.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, DeformableAttention):
            module.sampling = "gather"
    encoder, after = model.pixel_decoder.encoder, model.gate.after if gated and model.gate is not None else 0
    if min(exits) < after:
        raise ValueError(f"exits={list(exits)}: the gate looks after {after} layers; expected no exit before that")
    stops = sorted({after, *exits})
    layers = {
        stop: Part(f"layers_{start + 1}_{stop}", Layers(encoder, start, stop), (*LEVELS, *POSITIONS), LEVELS)
        for start, stop in pairwise(stops)
    }
    return Parts(
        Part("trunk", Trunk(model, gated), ("images",), (*LEVELS, "skip", *["scores"] * gated)),
        Part("positions", Positions(model.pixel_decoder), LEVELS, POSITIONS),
        layers,
        Part("head", Head(model), (*LEVELS, "skip"), ANSWERS),
        after,
    )
