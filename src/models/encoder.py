"""The encoder that both papers change: its schedule sets the levels of each layer, images leave at exits.

Letters: B images, C channels, h x w the pixels of a level, N the tokens of all active levels.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.encoder_layers import EncoderLayer
from src.models.position import Places
from src.models.sampling_operation import Size, split
from src.models.schedule import NUM_LEVELS, Expand, as_written


def check_exits(exits: Sequence[int] | None, depth: int) -> list[int]:
    """Return the exits sorted and without repeats; None means the last layer. Raises ValueError for other depths."""
    if exits is None:
        return [depth]
    if not exits or any(not isinstance(exit_, int) or not 1 <= exit_ <= depth for exit_ in exits):
        raise ValueError(f"exits={list(exits)}: the encoder has {depth} layers, expected depths from 1 to {depth}")
    return sorted(set(exits))


class TokenRecalibration(nn.Module):
    """Scale coarse tokens by a gate computed from the finest level at the same place (PRO-SCALE).

    `legacy_layout` repeats the published code, which reads the tokens of the finest level as if they were
    stored channel by channel. The weights released with the paper need it; new models should not use it.
    """

    def __init__(self, dim: int, temperature: float = 0.1, legacy_layout: bool = False):
        super().__init__()
        self.temperature = temperature
        self.legacy_layout = legacy_layout
        self.excite = nn.Linear(dim, 1)
        nn.init.xavier_uniform_(self.excite.weight)

    def forward(self, level: Tensor, finest: Tensor) -> Tensor:
        """Re-calibrate a level (B, C, h, w) by the finest level before encoding (B, C, H, W)."""
        if self.legacy_layout:
            finest = finest.flatten(2).transpose(1, 2).reshape(finest.shape)
        seen = F.interpolate(finest, level.shape[-2:], mode="bilinear", align_corners=False)
        if self.legacy_layout:
            rows = seen.flatten(1).unflatten(1, (-1, seen.shape[1]))  # (B, h * w, C), read off in memory order
        else:
            rows = seen.flatten(2).transpose(1, 2)
        gate = (self.temperature * self.excite(rows)).sigmoid()  # (B, h * w, 1)
        return level * gate.transpose(1, 2).unflatten(-1, level.shape[-2:])


class Encoder(nn.Module):
    """Encoder whose layers each update some levels and sample some, coarsest first.

    Args:
        schedule: number of layers with 1, 2, 3 active levels: [0, 0, 6] is Mask2Former, [3, 3, 3] PRO-SCALE; [6] is
            DETR with its one level, [0, 0, 0, 6] Deformable DETR.
        recalibrate: applied to each level coarser than the finest when it becomes active; None: nothing is.
        expand: from the schedule to the levels of each layer (`src/models/schedule.py`).
        sampling: form of sampling: "grid", "rows" or "triton" (`src/models/sampling.py`), "auto" by the device.
        num_levels: that enter the encoder.
        layer: one of `src/models/encoder_layers.py`, called with the arguments of `EncoderLayer`.
    """

    reads_positions = True

    def __init__(
        self,
        schedule: Sequence[int],
        dim: int = 256,
        num_heads: int = 8,
        num_points: int = 4,
        dim_feedforward: int = 1024,
        recalibrate: nn.Module | None = None,
        sampling: str = "auto",
        expand: Expand = as_written,
        num_levels: int = NUM_LEVELS,
        layer: Callable[..., nn.Module] = EncoderLayer,
    ):
        super().__init__()
        self.levels_of_layers = expand(schedule, num_levels=num_levels)
        self.layers = nn.ModuleList(
            layer(dim, levels.sampled, num_heads, num_points, dim_feedforward, sampling)
            for levels in self.levels_of_layers
        )
        self.recalibrate = recalibrate
        if any(updated != range(sampled) for updated, sampled in self.levels_of_layers):
            # shapes do not tell: without it, the weights would fit an encoder whose layers update other levels
            spans = [(updated.start, updated.stop) for updated, _ in self.levels_of_layers]
            self.register_buffer("updated_levels", torch.tensor(spans))

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def layout(self) -> str:
        """The levels of each layer, for people: 1 2 3, or 1-2/3 1-2/3 3/3."""
        return " ".join(map(str, self.levels_of_layers))

    def active_at(self, depth: int) -> int:
        """Return the number of levels that are active by a depth. Raises ValueError if there is no such layer."""
        check_exits([depth], self.depth)
        return max(levels.sampled for levels in self.levels_of_layers[:depth])

    def form_on(self, device: torch.device) -> str:
        """Return the form of deformable sampling that runs on a device. Raises ValueError if the one set cannot."""
        layer: Any = self.layers[0]
        return layer.form_on(device)

    def forward(
        self,
        levels: Sequence[Tensor],
        pos: Sequence[Tensor],
        exits: Sequence[int] | None = None,
        inside: Sequence[Tensor] | None = None,
    ) -> dict[int, list[Tensor]]:
        """Run the layers up to the deepest exit. Levels that are not active yet are returned unchanged.

        Args:
            levels: coarsest first, (B, C, h, w) each.
            pos: position and level embedding of each, (C, h, w), or (B, C, h, w) where images differ in size.
            exits: depths to return; None: the last layer.
            inside: the pixels of each that belong to an image, (B, h, w) bool; None: all do.

        Returns:
            {depth: levels after that many layers}, one entry per exit.
        """
        exits = check_exits(exits, self.depth)
        running = [len(levels[0])] * exits[-1]
        return {depth: memory for depth, memory in self.run(levels, pos, running, inside=inside) if depth in exits}

    def leave(
        self,
        levels: Sequence[Tensor],
        pos: Sequence[Tensor],
        depths: Sequence[int],
        start: int = 0,
        inside: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the levels (B, C, h, w), each image after its own number of layers, `depths` (B,).

        The given levels are those after `start` layers, which all images have run. Raises ValueError for a depth that
        the encoder does not have, or below `start`.

        The batch is sorted, deepest exit first. The images that are still running are then always the first ones, and
        after each layer those at the end leave. With depths [2, 3, 1]:

            sorted images      1  0  2
            layer 1 runs on    1  0  2    image 2 leaves
            layer 2 runs on    1  0       image 0 leaves
            layer 3 runs on    1          image 1 leaves
        """
        check_exits(depths, self.depth)
        if min(depths) < start:
            raise ValueError(f"depths={list(depths)}: all images have run {start} layers, expected no fewer")
        order = sorted(range(len(depths)), key=lambda image: -depths[image])
        running = [sum(last >= depth for last in depths) for depth in range(start + 1, max(depths) + 1)]
        sorted_levels = [level[order] for level in levels]
        sorted_pos = [p[order] if p.dim() == 4 else p for p in pos]
        sorted_inside = None if inside is None else [one[order] for one in inside]
        layers = self.run(sorted_levels, sorted_pos, running, start, sorted_inside)
        leaving: list[list[Tensor]] = []  # after each layer, the levels of the images that leave there
        for depth, memory in chain([(start, sorted_levels)], layers):
            num_staying = sum(last > depth for last in depths)
            leaving.append([level[num_staying:] for level in memory])
        leaving.reverse()  # deepest first, the order of the sorted batch
        original_order = [order.index(image) for image in range(len(depths))]
        return [torch.cat(parts)[original_order] for parts in zip(*leaving, strict=True)]

    def run(
        self,
        levels: Sequence[Tensor],
        pos: Sequence[Tensor],
        running: Sequence[int],
        start: int = 0,
        inside: Sequence[Tensor] | None = None,
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield (depth, levels) after each layer.

        `running` has one entry per layer to run: the layer sees that many images, the first ones of the batch. The
        given levels are those after `start` layers, and layer `start + 1` is the first to run.
        """
        sizes: list[Size] = [(level.shape[-2], level.shape[-1]) for level in levels]
        places = Places.of(levels, pos, inside)
        num_images, dim = levels[0].shape[:2]
        bounds = list(accumulate((h * w for h, w in sizes), initial=0))  # of the levels among the tokens
        active = self.active_at(start) if start else 0
        none = levels[0].new_empty(num_images, 0, dim)  # tokens before any level is active
        tokens = torch.cat([none, *map(tokens_of, levels[:active])], 1)
        for depth, num_images in enumerate(running, start + 1):
            layer, (updated, sampled) = self.layers[depth - 1], self.levels_of_layers[depth - 1]
            levels = [level[:num_images] for level in levels]
            entering = [self.enter(level, levels[-1]) for level in levels[active:sampled]]
            tokens = torch.cat([tokens[:num_images], *entering], 1) if entering else tokens[:num_images]  # (B, N, C)
            own, end = slice(bounds[updated.start], bounds[updated.stop]), bounds[sampled]
            new = layer(tokens[:, :end], own, places.among(num_images, sampled, end), sizes[:sampled])
            tokens = replaced(tokens, own.start, new)
            active = max(active, sampled)
            yield depth, [*split_levels(tokens, sizes[:active]), *levels[active:]]

    def enter(self, level: Tensor, finest: Tensor) -> Tensor:
        """Return the tokens (B, h * w, C) of a level (B, C, h, w) that becomes active."""
        if self.recalibrate is not None and level is not finest:
            level = self.recalibrate(level, finest)
        return tokens_of(level)


def tokens_of(level: Tensor) -> Tensor:
    """Return a level (B, C, h, w) as tokens (B, h * w, C)."""
    return level.flatten(2).transpose(1, 2)


def replaced(tokens: Tensor, first: int, new: Tensor) -> Tensor:
    """Return tokens (B, N, C) with those from `first` on replaced by new ones (B, n, C); without a copy if all are."""
    parts = [part for part in (tokens[:, :first], new, tokens[:, first + new.shape[1] :]) if part.shape[1]]
    return torch.cat(parts, 1) if len(parts) > 1 else new


def split_levels(tokens: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """Split tokens (B, N, C) into one map (B, C, h, w) per level."""
    parts = split(tokens, sizes)
    return [part.transpose(1, 2).unflatten(-1, size) for part, size in zip(parts, sizes, strict=True)]
