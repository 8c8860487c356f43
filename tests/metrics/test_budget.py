"""A budget in whatever unit."""

from typing import Any

import pytest
import torch

from src.metrics.budget import Budget, budget_of
from src.metrics.exit_choice import beta_for_budget, mean_cost

DEPTHS = [1, 2]


class Clock:
    """Ten milliseconds a GFLOP at exit 1, twenty at exit 2."""

    def milliseconds(self, exit: int, gflops: Any) -> Any:
        return 10.0 * exit * gflops


def test_costs_in_milliseconds() -> None:
    """Each exit by its own times; GFLOPs stay as they are without any."""
    gflops = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert torch.equal(Budget(1.0).costs(gflops, DEPTHS), gflops.double())
    expected = torch.tensor([[10.0, 40.0], [30.0, 80.0]], dtype=torch.float64)
    assert torch.equal(Budget(1.0, "budget_ms", Clock()).costs(gflops, DEPTHS), expected)


@pytest.mark.parametrize("limit", [20.001, 25.0, 37.5, 59.999])
def test_the_mean_time_is_within_the_budget(limit: float) -> None:
    """With the next smaller beta it is not, unless nothing is left to gain."""
    budget = Budget(limit, "budget_ms", Clock())
    gflops = torch.rand(50, 1, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.5]) + 1
    gflops *= torch.tensor([20.0, 60.0]) / budget.costs(gflops, DEPTHS).mean(0).float()
    quality = torch.rand(50, 2, generator=torch.Generator().manual_seed(1)).cumsum(1)
    beta, cost = beta_for_budget(quality, gflops, DEPTHS, budget), budget.costs(gflops, DEPTHS)
    assert mean_cost(quality, cost, DEPTHS, beta) <= limit
    assert beta == 0 or mean_cost(quality, cost, DEPTHS, beta * (1 - 1e-9)) > limit


def test_messages_name_the_setting_and_its_unit() -> None:
    """What the cheapest exit costs, in milliseconds."""
    budget = Budget(5.0, "budget_ms", Clock())
    with pytest.raises(ValueError, match=r"budget_ms=5: expected 10 \(every image at exit 1\) to 40 \(at exit 2\)"):
        beta_for_budget(torch.rand(1, 2), torch.tensor([[1.0, 2.0]]), DEPTHS, budget)
    with pytest.raises(ValueError, match=r"budget_ms=5: an image costs 10 at the shallowest exit, 1; expected that"):
        budget.affords([10.0, 40.0], DEPTHS)
    assert Budget(10.0).affords([10.0, 40.0], DEPTHS) == [True, False]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((1.0, 2.0, False, Clock()), "budget_gflops=1 and budget_ms=2: both are a budget; expected one of them"),
        ((None, None, True, None), "budget_per_image=true: expected budget_gflops=N or budget_ms=N"),
        ((None, 2.0, False, None), "budget_ms=2: expected the times of every exit, latency=FILE"),
    ],
)
def test_settings_that_are_no_budget(settings: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        budget_of(*settings)


def test_without_a_budget_there_is_none() -> None:
    """Nor with a table of times alone."""
    assert budget_of(None, None, False, Clock()) is None
