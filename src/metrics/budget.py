"""What images may cost, in GFLOPs or in milliseconds; what follows does not know the unit.

Letters: N images, E exits.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Times(Protocol):
    """A table of measured times, as `src.records.latency_table` has it."""

    def milliseconds(self, exit: int, gflops: Any) -> Any:
        """Return milliseconds at an exit for costs in GFLOPs."""


class Budget(NamedTuple):
    """A cost to keep to."""

    limit: float
    setting: str = "budget_gflops"  # the setting that it comes from, which messages name
    times: Times | None = None  # null: the unit is GFLOPs, as costs have it
    per_image: bool = False  # no image costs more; false: the mean over images does not

    def costs(self, gflops: Tensor, exits: Sequence[int]) -> Tensor:
        """Return costs (N, E) in the budget's unit, float64, of GFLOPs (N, E)."""
        gflops = gflops.double()
        if self.times is None:
            return gflops
        columns = [self.times.milliseconds(depth, gflops[:, i].cpu().numpy()) for i, depth in enumerate(exits)]
        return torch.stack([torch.from_numpy(column) for column in columns], 1).to(gflops.device)

    def milliseconds(self, exit: int, gflops: float) -> float | None:
        """Return the time of an image at an exit; None if the unit is GFLOPs."""
        return None if self.times is None else float(self.times.milliseconds(exit, gflops))

    def affords(self, costs: Sequence[float], exits: Sequence[int]) -> list[bool]:
        """Return for each exit whether an image may take it, by its costs (E,) in the budget's unit.

        Raises ValueError if it may take none.
        """
        within = [cost <= self.limit for cost in costs]
        if not any(within):
            cheapest = min(range(len(costs)), key=lambda place: costs[place])
            where = "at the shallowest exit" if cheapest == 0 else "at the cheapest exit"
            raise ValueError(
                f"{self.setting}={self.limit:g}: an image costs {costs[cheapest]:.6g} {where}, {exits[cheapest]}; "
                "expected that or more"
            )
        return within


def budget_of(
    budget_gflops: float | None, budget_ms: float | None, budget_per_image: bool, latency: Times | None
) -> Budget | None:
    """Return the budget that these settings give; None without one.

    Raises ValueError for two budgets, for `budget_per_image` without one, and for milliseconds without a table.
    """
    if budget_gflops is not None and budget_ms is not None:
        raise ValueError(
            f"budget_gflops={budget_gflops:g} and budget_ms={budget_ms:g}: both are a budget; expected one of them"
        )
    if budget_gflops is None and budget_ms is None:
        if budget_per_image:
            raise ValueError("budget_per_image=true: expected budget_gflops=N or budget_ms=N, which images keep to")
        return None
    if budget_ms is None:
        assert budget_gflops is not None
        return Budget(budget_gflops, per_image=budget_per_image)
    if latency is None:
        raise ValueError(f"budget_ms={budget_ms:g}: expected the times of every exit, latency=FILE")
    return Budget(budget_ms, "budget_ms", latency, budget_per_image)
