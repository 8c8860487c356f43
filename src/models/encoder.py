"""The encoder that both papers change: a schedule says which levels are alive at each layer, exits where it may stop.

Letters: B images, C channels, h x w the pixels of a level, N the tokens of all levels that are alive.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.attention import DeformableAttention, Size
from src.models.position import reference_points


def expand_schedule(schedule: Sequence[int], num_levels: int = 3) -> list[int]:
    """Levels alive at each layer: [3, 3, 3] gives [1, 1, 1, 2, 2, 2, 3, 3, 3], Mask2Former's [0, 0, 6] six times 3."""
    if len(schedule) > num_levels or any(not isinstance(n, int) or n < 0 for n in schedule) or sum(schedule) == 0:
        raise ValueError(
            f"schedule={list(schedule)}: expected up to {num_levels} counts of layers (with 1, 2, ... levels alive), "
            "none negative and at least one layer in all, for example [0, 0, 6] or [3, 3, 3]"
        )
    return [alive for alive, num_layers in enumerate(schedule, 1) for _ in range(num_layers)]


def check_exits(exits: Sequence[int] | None, depth: int) -> list[int]:
    """The exits in rising order, without repeats; null is the last layer."""
    if exits is None:
        return [depth]
    if not exits or any(not isinstance(exit_, int) or not 1 <= exit_ <= depth for exit_ in exits):
        raise ValueError(f"exits={list(exits)}: the encoder has {depth} layers, expected depths from 1 to {depth}")
    return sorted(set(exits))


class EncoderLayer(nn.Module):
    """Deformable self-attention over the levels that are alive, then a feed-forward net; norms come after."""

    def __init__(self, dim: int, num_levels: int, num_heads: int, num_points: int, dim_feedforward: int):
        super().__init__()
        self.self_attn = DeformableAttention(dim, num_levels, num_heads, num_points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, tokens: Tensor, pos: Tensor, reference: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Tokens and their positions (B, N, C), reference points (N, 2), sizes of the alive levels to (B, N, C)."""
        tokens = self.norm1(tokens + self.self_attn(tokens + pos, tokens, reference, sizes))
        return self.norm2(tokens + self.linear2(F.relu(self.linear1(tokens))))


class TokenRecalibration(nn.Module):
    """Coarse tokens weighed by what the finest level holds at their place (PRO-SCALE, token re-calibration).

    `legacy_layout` repeats the published code, which reads the tokens of the finest level as if they lay channel by
    channel; weights released with the paper need it, new ones should not use it.
    """

    def __init__(self, dim: int, temperature: float = 0.1, legacy_layout: bool = False):
        super().__init__()
        self.temperature = temperature
        self.legacy_layout = legacy_layout
        self.excite = nn.Linear(dim, 1)
        nn.init.xavier_uniform_(self.excite.weight)

    def forward(self, level: Tensor, finest: Tensor) -> Tensor:
        """A level (B, C, h, w) and the un-encoded finest one (B, C, H, W) to the re-calibrated level (B, C, h, w)."""
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
    """Deformable encoder whose layers update a growing prefix of the levels, coarsest first.

    Args:
        schedule: layers with 1, 2, 3 levels alive: [0, 0, 6] is Mask2Former, [3, 3, 3] PRO-SCALE.
        recalibrate: what a level coarser than the finest passes when it comes alive, if anything.
    """

    def __init__(
        self,
        schedule: Sequence[int],
        dim: int = 256,
        num_heads: int = 8,
        num_points: int = 4,
        dim_feedforward: int = 1024,
        recalibrate: nn.Module | None = None,
    ):
        super().__init__()
        self.levels_alive = expand_schedule(schedule)  # at each layer
        self.layers = nn.ModuleList(
            EncoderLayer(dim, alive, num_heads, num_points, dim_feedforward) for alive in self.levels_alive
        )
        self.recalibrate = recalibrate

    @property
    def depth(self) -> int:
        """Layers in all."""
        return len(self.layers)

    def forward(
        self, levels: Sequence[Tensor], pos: Sequence[Tensor], exits: Sequence[int] | None = None
    ) -> dict[int, list[Tensor]]:
        """Run as many layers as the deepest exit; levels that did not come alive leave as they came.

        Args:
            levels: coarsest first, (B, C, h, w) each.
            pos: position and level embedding of each, (C, h, w).
            exits: depths asked for; null: the last layer.

        Returns:
            {depth: levels after that many layers}, one entry per exit.
        """
        exits = check_exits(exits, self.depth)
        running = [len(levels[0])] * exits[-1]
        return {depth: memory for depth, memory in self.run(levels, pos, running) if depth in exits}

    def leave(self, levels: Sequence[Tensor], pos: Sequence[Tensor], depths: Sequence[int]) -> list[Tensor]:
        """Levels (B, C, h, w), each image after as many layers as `depths` (B,) says for it; arguments as `forward`.

        With the deepest first, the images still running are the first ones of the batch, and no layer sees the others.
        """
        check_exits(depths, self.depth)
        order = sorted(range(len(depths)), key=lambda image: -depths[image])
        running = [sum(last >= depth for last in depths) for depth in range(1, max(depths) + 1)]
        left = [
            [level[after:] for level in memory]
            for (_, memory), after in zip(
                self.run([level[order] for level in levels], pos, running), [*running[1:], 0], strict=True
            )
        ]  # of each layer, the images that leave there
        places = [order.index(image) for image in range(len(depths))]
        return [torch.cat(parts[::-1])[places] for parts in zip(*left, strict=True)]

    def run(
        self, levels: Sequence[Tensor], pos: Sequence[Tensor], running: Sequence[int]
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """(depth, levels) after each layer, of which the d-th runs on the first `running[d]` images."""
        sizes: list[Size] = [(level.shape[-2], level.shape[-1]) for level in levels]
        all_pos = torch.cat([p.flatten(1) for p in pos], 1).T  # (N, C)
        reference = torch.cat([reference_points(h, w, levels[0].device) for h, w in sizes])  # (N, 2)
        tokens, num_alive = levels[0].flatten(2)[..., :0].transpose(1, 2), 0  # (B, 0, C)
        layers = zip(self.layers, self.levels_alive, running, strict=False)  # those past the last exit do not run
        for depth, (layer, alive, count) in enumerate(layers, 1):
            levels = [level[:count] for level in levels]
            entering = [self.enter(level, levels[-1]) for level in levels[num_alive:alive]]
            tokens, num_alive = torch.cat([tokens[:count], *entering], 1), alive  # (B, N, C)
            num_tokens = tokens.shape[1]
            tokens = layer(tokens, all_pos[:num_tokens], reference[:num_tokens], sizes[:alive])
            yield depth, [*split_levels(tokens, sizes[:alive]), *levels[alive:]]

    def enter(self, level: Tensor, finest: Tensor) -> Tensor:
        """Tokens (B, h * w, C) of a level (B, C, h, w) that comes alive."""
        if self.recalibrate is not None and level is not finest:
            level = self.recalibrate(level, finest)
        return level.flatten(2).transpose(1, 2)


def split_levels(tokens: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """Tokens (B, N, C) back to maps (B, C, h, w)."""
    parts = tokens.split([h * w for h, w in sizes], 1)
    return [part.transpose(1, 2).unflatten(-1, size) for part, size in zip(parts, sizes, strict=True)]
