"""Which levels each encoder layer updates, and which it samples.

A schedule counts the layers with 1, 2, 3 ... active levels. The functions here turn it into the levels of each layer:
as it is written (Mask2Former, PRO-SCALE), or as other encoders follow from the number of Mask2Former's layers.
Levels are counted from the coarsest.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

NUM_LEVELS = 3  # of models that segment; detectors have 1 or 4


class LayerLevels(NamedTuple):
    """The levels of an encoder layer."""

    updated: range  # levels whose tokens are queries; a part of those sampled
    sampled: int  # so many levels are values, the coarsest first

    def __str__(self) -> str:
        """The number of active levels, or which levels of how many are updated: 3, 1-2/3, 3/3."""
        first, last = self.updated.start + 1, self.updated.stop
        if (first, last) == (1, self.sampled):
            return str(self.sampled)
        return f"{first}-{last}/{self.sampled}" if last > first else f"{last}/{self.sampled}"


Expand = Callable[..., list[LayerLevels]]  # called with a schedule and `num_levels`


def expand_schedule(schedule: Sequence[int], num_levels: int = NUM_LEVELS) -> list[int]:
    """Return the number of active levels of each layer: [1, 2, 1] gives [1, 2, 2, 3].

    Raises ValueError for negative counts, too many levels or no layer at all.
    """
    if len(schedule) > num_levels or any(not isinstance(n, int) or n < 0 for n in schedule) or sum(schedule) == 0:
        raise ValueError(
            f"schedule={list(schedule)}: expected up to {num_levels} counts of layers (with 1, 2, ... active levels), "
            "none negative and at least one layer in all, for example [0, 0, 6] or [3, 3, 3]"
        )
    return [active for active, num_layers in enumerate(schedule, 1) for _ in range(num_layers)]


def as_written(schedule: Sequence[int], num_levels: int = NUM_LEVELS) -> list[LayerLevels]:
    """Every layer updates and samples the active levels."""
    return [LayerLevels(range(active), active) for active in expand_schedule(schedule, num_levels)]


def full(schedule: Sequence[int], num_levels: int = NUM_LEVELS) -> list[LayerLevels]:
    """Mask2Former: all levels are active in every layer. Raises ValueError for a schedule that says otherwise."""
    return as_written([0] * (num_levels - 1) + [num_full_layers(schedule, num_levels)], num_levels)


def growing(schedule: Sequence[int], per_stage: int | None = None, num_levels: int = NUM_LEVELS) -> list[LayerLevels]:
    """PRO-SCALE: as many layers with 1, with 2 and with each further number of active levels.

    Args:
        schedule: Mask2Former's, [0, 0, layers], or that of a detector, whose layers all have all levels.
        per_stage: None: half of Mask2Former's layers, as published: (3, 3, 3) for six.
    """
    per_stage = half_of(schedule, num_levels) if per_stage is None else per_stage
    return as_written([per_stage] * num_levels, num_levels)


def interleaved(
    schedule: Sequence[int], coarse_layers: int = 2, blocks: int | None = None, num_levels: int = NUM_LEVELS
) -> list[LayerLevels]:
    """Lite DETR, section 3.3: layers that update all levels but the finest, then one that updates the finest.

    Every layer samples all levels.

    Args:
        schedule: as for `growing`.
        coarse_layers: of each block.
        blocks: None: half of Mask2Former's layers, as published: (2 + 1) x 3 for six.
    """
    coarse = LayerLevels(range(num_levels - 1), num_levels)
    finest = LayerLevels(range(num_levels - 1, num_levels), num_levels)
    return ([coarse] * coarse_layers + [finest]) * (half_of(schedule, num_levels) if blocks is None else blocks)


def half_of(schedule: Sequence[int], num_levels: int = NUM_LEVELS) -> int:
    """Half of Mask2Former's layers, rounded down, at least one. Raises ValueError for any other schedule."""
    return max(num_full_layers(schedule, num_levels) // 2, 1)


def num_full_layers(schedule: Sequence[int], num_levels: int = NUM_LEVELS) -> int:
    """The number of Mask2Former's layers. Raises ValueError for any other schedule."""
    if set(expand_schedule(schedule, num_levels)) != {num_levels}:
        wanted = ", ".join(["0"] * (num_levels - 1) + ["layers"])
        raise ValueError(
            f"schedule={list(schedule)}: this encoder follows from the number of layers with all {num_levels} levels, "
            f"expected [{wanted}], as the experiments mask2former_* have it"
        )
    return schedule[-1]
