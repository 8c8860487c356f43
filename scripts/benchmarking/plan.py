"""What is compared and how: the choices of the command line, and what was measured."""

import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch

from src.system.stopwatch import WARM_UP, Seconds

THEIRS, OURS = "transformers", "mask2former"
POST = "post-processing"


class Plan(NamedTuple):
    """How models are built and run."""

    settings: list[str]  # overrides of all our models
    classes: str
    device: torch.device
    precision: str
    compile: bool
    batch: int
    rounds: int

    @property
    def warm_up(self) -> int:
        return WARM_UP[self.device.type]

    def autocast(self) -> AbstractContextManager[Any]:
        """A context with the precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


class Quartiles(NamedTuple):
    """The middle half of some numbers."""

    low: float
    median: float
    high: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """Return the quartiles, the extremes included."""
    if len(values) == 1:
        return Quartiles(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Quartiles(low, median, high)


class Row(NamedTuple):
    """What was measured of a contestant."""

    name: str
    images: int  # of a call
    reference: str  # the row whose times and multiply-adds this one's are divided by
    gmac: dict[str, float]  # of an image, by part; empty where they are not counted
    seconds: Seconds  # of a call, by part
    exits: list[int] | None = None  # of the images

    def per_image(self, parts: Sequence[str] | None = None) -> list[float]:
        """Return the seconds of an image in every round, of some parts; None: of all except post-processing."""
        names = [name for name in self.seconds if name != POST] if parts is None else parts
        return [sum(times) / self.images for times in zip(*(self.seconds[name] for name in names), strict=True)]

    def cost(self, parts: Sequence[str] | None = None) -> float:
        """Return the GMAC of an image, of some parts; None: of all except post-processing."""
        names = [name for name in self.gmac if name != POST] if parts is None else parts
        return sum(self.gmac[name] for name in names)

    def time_ratio(self, other: "Row", parts: Sequence[str] | None = None) -> Quartiles:
        """Return the time over that of another row, round by round: what disturbs a round disturbs both."""
        return quartiles([a / b for a, b in zip(self.per_image(parts), other.per_image(parts), strict=True)])

    def cost_ratio(self, other: "Row", parts: Sequence[str] | None = None) -> float:
        """Return the multiply-adds over those of another row."""
        return self.cost(parts) / other.cost(parts)
