"""What the framework asks of an encoder, and encoders of a fixed structure, whose end is their only exit.

Letters: B images, C channels, h x w the pixels of a level.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from src.models.encoder import check_exits
from src.models.schedule import NUM_LEVELS


class PixelEncoder(Protocol):
    """Updates the levels inside the pixel decoder; images may leave at exits. `Encoder` is one."""

    layers: nn.ModuleList  # one per depth; its costs are those of the modules `layers.0`, `layers.1` ...
    reads_positions: bool  # otherwise there is nothing to learn for a level's embedding

    @property
    def depth(self) -> int:
        """The deepest exit; exits are 1 to this one."""

    @property
    def layout(self) -> str:
        """The levels of each layer, for people."""

    def active_at(self, depth: int) -> int:
        """Return the number of levels that are active by a depth. Raises ValueError if there is no such exit."""

    def form_on(self, device: torch.device) -> str:
        """Return the form of deformable sampling that runs on a device. Raises ValueError if the one set cannot."""

    def __call__(
        self,
        levels: Sequence[Tensor],
        pos: Sequence[Tensor],
        exits: Sequence[int] | None = None,
        inside: Sequence[Tensor] | None = None,
    ) -> dict[int, list[Tensor]]:
        """Map levels (B, C, h, w), coarsest first, to {depth: levels} for each exit.

        Positions are (C, h, w) each, or (B, C, h, w) where images differ in size; `inside` (B, h, w) bool each are the
        pixels that belong to an image, None: all do.
        """

    def leave(
        self,
        levels: Sequence[Tensor],
        pos: Sequence[Tensor],
        depths: Sequence[int],
        start: int = 0,
        inside: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the levels, each image's after its depth in `depths` (B,); those after `start` layers are given."""

    def run(
        self,
        levels: Sequence[Tensor],
        pos: Sequence[Tensor],
        running: Sequence[int],
        start: int = 0,
        inside: Sequence[Tensor] | None = None,
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield (depth, levels) after each layer from `start` on, for so many images each, the first of the batch."""


class FixedLayer(Protocol):
    """The one layer of an encoder of a fixed structure."""

    reads_positions: bool

    def __call__(self, levels: Sequence[Tensor], pos: Sequence[Tensor]) -> list[Tensor]:
        """Map levels (B, C, h, w), coarsest first, with positions (C, h, w), to as many levels of the same shapes."""


class FixedEncoder(nn.Module):
    """An encoder of a fixed structure: one layer, after which every image leaves. It treats padding as image.

    Args:
        layer: a `FixedLayer`.
        recalibrate: None, since no level becomes active later than another.
        others: settings of deformable encoders are accepted and ignored; an experiment has them for its own encoder.
    """

    def __init__(
        self,
        layer: Any,
        recalibrate: nn.Module | None = None,
        schedule: Sequence[int] | None = None,
        dim: int | None = None,
        num_heads: int | None = None,
        num_points: int | None = None,
        dim_feedforward: int | None = None,
        sampling: str = "auto",
    ):
        super().__init__()
        if recalibrate is not None:
            raise ValueError(
                f"model/recalibration: {type(layer).__name__} has no schedule that lets levels in one by one; "
                "expected model/recalibration=none"
            )
        self.layers = nn.ModuleList([layer])
        self.reads_positions: bool = layer.reads_positions

    @property
    def depth(self) -> int:
        return 1

    @property
    def layout(self) -> str:
        return type(self.layers[0]).__name__

    def active_at(self, depth: int) -> int:
        """Return the number of levels: all. Raises ValueError for any exit but 1."""
        check_exits([depth], self.depth)
        return NUM_LEVELS

    def form_on(self, device: torch.device) -> str:
        return "none"

    def forward(
        self,
        levels: Sequence[Tensor],
        pos: Sequence[Tensor],
        exits: Sequence[int] | None = None,
        inside: Sequence[Tensor] | None = None,
    ) -> dict[int, list[Tensor]]:
        """As `PixelEncoder`."""
        return {depth: self.layers[0](levels, pos) for depth in check_exits(exits, self.depth)}

    def leave(
        self,
        levels: Sequence[Tensor],
        pos: Sequence[Tensor],
        depths: Sequence[int],
        start: int = 0,
        inside: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """As `PixelEncoder`."""
        check_exits(depths, self.depth)
        return list(levels) if start else self.layers[0](levels, pos)

    def run(
        self,
        levels: Sequence[Tensor],
        pos: Sequence[Tensor],
        running: Sequence[int],
        start: int = 0,
        inside: Sequence[Tensor] | None = None,
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """As `PixelEncoder`."""
        for depth, num_images in enumerate(running, start + 1):
            yield depth, self.layers[0]([level[:num_images] for level in levels], pos)
