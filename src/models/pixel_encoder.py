"""What the framework asks of an encoder, and encoders of a fixed structure, whose end is their only exit.

Letters: B images, C channels, h x w the pixels of a level.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from src.models.encoder import check_exits


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
        self, levels: Sequence[Tensor], pos: Sequence[Tensor], exits: Sequence[int] | None = None
    ) -> dict[int, list[Tensor]]:
        """Map levels (B, C, h, w), coarsest first, with positions (C, h, w), to {depth: levels} for each exit."""

    def leave(self, levels: Sequence[Tensor], pos: Sequence[Tensor], depths: Sequence[int]) -> list[Tensor]:
        """Return the levels (B, C, h, w), each image after its own depth, `depths` (B,)."""

    def run(
        self, levels: Sequence[Tensor], pos: Sequence[Tensor], running: Sequence[int]
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield (depth, levels) after each layer; `running` says how many images, the first ones, each layer sees."""


class FixedLayer(Protocol):
    """The one layer of an encoder of a fixed structure."""

    reads_positions: bool

    def __call__(self, levels: Sequence[Tensor], pos: Sequence[Tensor]) -> list[Tensor]:
        """Map levels (B, C, h, w), coarsest first, with positions (C, h, w), to as many levels of the same shapes."""


class FixedEncoder(nn.Module):
    """An encoder of a fixed structure: one layer, after which every image leaves.

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
        return 3

    def form_on(self, device: torch.device) -> str:
        return "none"

    def forward(
        self, levels: Sequence[Tensor], pos: Sequence[Tensor], exits: Sequence[int] | None = None
    ) -> dict[int, list[Tensor]]:
        """As `PixelEncoder`."""
        check_exits(exits, self.depth)
        return dict(self.run(levels, pos, [len(levels[0])]))

    def leave(
        self, levels: Sequence[Tensor], pos: Sequence[Tensor], depths: Sequence[int], start: int = 0
    ) -> list[Tensor]:
        """As `PixelEncoder`, from the levels after `start` layers."""
        check_exits(depths, self.depth)
        running = [len(levels[0])] * (self.depth - start)
        *_, (_, left) = [(start, list(levels)), *self.run(levels, pos, running, start)]
        return left

    def run(
        self, levels: Sequence[Tensor], pos: Sequence[Tensor], running: Sequence[int], start: int = 0
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """As `PixelEncoder`, from the levels after `start` layers."""
        for depth, num_images in enumerate(running, start + 1):
            levels = self.layers[depth - 1]([level[:num_images] for level in levels], pos)
            yield depth, list(levels)
