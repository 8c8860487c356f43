"""From the backbone's features to what a decoder reads at each exit: project, encode, finish.

Letters: B images, C channels, H x W the pixels of the padded batch, h x w those of a level.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from src.models.gate import Seen
from src.models.pixel_encoder import PixelEncoder

FirstMasks = Callable[[Tensor], Tensor]  # mask features (B, C, h, w) to logits (B, Q, h, w), see `Mask2Former`


class Projected(NamedTuple):
    """Levels, coarsest first, and where their pixels are."""

    levels: list[Tensor]  # (B, C, h, w) each
    pos: list[Tensor]  # (C, h, w) each, or (B, C, h, w) where images differ in size
    inside: list[Tensor] | None = None  # (B, h, w) bool each, True inside of the image; None: all are


class Neck(nn.Module):
    """What `PixelDecoder` and `DetectionNeck` have in common: the way of levels through the `encoder`.

    Args:
        strides: of the levels, coarsest first.
        dim: channels of the levels.
        mixed_precision: False, as published, computes in float32 also under autocast.
    """

    encoder: PixelEncoder

    def __init__(self, strides: Sequence[int], dim: int, mixed_precision: bool):
        super().__init__()
        self.strides, self.dim, self.mixed_precision = list(strides), dim, mixed_precision

    @abstractmethod
    def project(self, features: Mapping[int, Tensor], inside: Tensor | None = None) -> Projected:
        """Features by stride to what the encoder takes; `inside` (B, H, W) bool: the pixels of each image."""

    def skip(self, features: Mapping[int, Tensor]) -> Tensor | None:
        """What is computed from the features once and passes the encoder by; None: nothing."""
        return None

    @abstractmethod
    def finish(self, encoded: Projected, skip: Tensor | None) -> Sequence[Any]:
        """What the decoder reads, from the levels of an exit: the arguments of its `forward`."""

    def coarse_features(self, skip: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """Mask features that are cheap enough for a gate to look at. Only for models that predict masks."""
        raise NotImplementedError

    def forward(
        self, features: Mapping[int, Tensor], exits: Sequence[int] | None = None, inside: Tensor | None = None
    ) -> dict[int, Sequence[Any]]:
        """Features by stride to {depth: what the decoder reads}; `inside` (B, H, W) bool: the pixels of each image."""
        with self.precision(features) as features:
            projected, skip = self.project(features, inside), self.skip(features)
            memories = self.encoder(projected.levels, projected.pos, exits, projected.inside)
            return {depth: self.finish(projected._replace(levels=levels), skip) for depth, levels in memories.items()}

    def leave(
        self,
        features: Mapping[int, Tensor],
        choose: Callable[[Seen], list[int]],
        after: int,
        first_masks: FirstMasks | None = None,
        inside: Tensor | None = None,
    ) -> tuple[Sequence[Any], list[int]]:
        """What the decoder reads, each image's after the depth that `choose` gives for it, and these depths.

        All images run `after` layers; `choose` is called with what there is to see then.
        """
        with self.precision(features) as features:
            projected, skip = self.project(features, inside), self.skip(features)
            earlier, latest = self.run(projected, after)
            depths = choose(self.see(projected, earlier, latest, skip, first_masks))
            levels = self.encoder.leave(latest, projected.pos, depths, after, projected.inside)
            return self.finish(projected._replace(levels=levels), skip), depths

    def look_and_encode(
        self,
        features: Mapping[int, Tensor],
        exits: Sequence[int],
        after: int,
        first_masks: FirstMasks | None = None,
        inside: Tensor | None = None,
    ) -> tuple[Seen, dict[int, Sequence[Any]]]:
        """What a gate sees after so many layers, and {depth: what the decoder reads}; no layer runs twice."""
        kept = {after - 1, after, *exits}
        with self.precision(features) as features:
            projected, skip = self.project(features, inside), self.skip(features)
            levels, pos, inside_levels = projected
            running = [len(levels[0])] * max(kept)
            layers = self.encoder.run(levels, pos, running, inside=inside_levels)
            encoded = {0: levels} | {depth: memory for depth, memory in layers if depth in kept}
            seen = self.see(projected, encoded[max(after - 1, 0)], encoded[after], skip, first_masks)
            return seen, {depth: self.finish(projected._replace(levels=encoded[depth]), skip) for depth in exits}

    def run(self, projected: Projected, after: int) -> tuple[list[Tensor], list[Tensor]]:
        """The levels one layer before so many layers, and after them; those that are projected if there is none."""
        levels, pos, inside = projected
        earlier = latest = levels
        for _, memory in self.encoder.run(levels, pos, [levels[0].shape[0]] * after, inside=inside):
            earlier, latest = latest, memory
        return earlier, latest

    def see(
        self,
        projected: Projected,
        earlier: Sequence[Tensor],
        latest: Sequence[Tensor],
        skip: Tensor | None = None,
        first_masks: FirstMasks | None = None,
    ) -> Seen:
        """What a gate sees: the projected levels, those one layer before the latest, and the latest."""

        def masks() -> Tensor:
            assert first_masks is not None
            assert skip is not None
            with self.autocast(skip.device.type):
                return first_masks(self.coarse_features(skip, latest))

        return Seen(
            self.by_stride(projected.levels),
            self.by_stride(earlier),
            self.by_stride(latest),
            None if first_masks is None else masks,
            None if projected.inside is None else self.by_stride(projected.inside),
        )

    def by_stride(self, levels: Sequence[Tensor]) -> dict[int, Tensor]:
        return dict(zip(self.strides, levels, strict=True))

    @contextmanager
    def precision(self, features: Mapping[int, Tensor]) -> Iterator[Mapping[int, Tensor]]:
        """A context with the precision of the pixel decoder, and the features in it, in memory (B, h, w, C).

        Channels last is the layout of tokens, so that levels become tokens without a copy; pooling, convolutions and
        resizes are as fast or faster in it (the light pixel embedding four times).
        """
        device_type = features[self.strides[-1]].device.type
        with self.autocast(device_type) as mixed:
            yield {
                stride: (feature if mixed else feature.float()).contiguous(memory_format=torch.channels_last)
                for stride, feature in features.items()
            }

    @contextmanager
    def autocast(self, device_type: str) -> Iterator[bool]:
        """A context with the precision of the pixel decoder; whether that is a mixed one."""
        possible = torch.amp.is_autocast_available(device_type)  # not on the meta device
        enabled = possible and torch.is_autocast_enabled(device_type)
        mixed = enabled and self.mixed_precision
        with torch.autocast(device_type, enabled=False) if enabled and not mixed else nullcontext():
            yield mixed
