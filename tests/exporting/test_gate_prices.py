"""What a manifest says of the prices of a layer."""

import pytest
import torch

from src.exporting.gate_prices import STEPS, price_table
from src.tasks.gate_targets import TARGETS, Rows

EXITS = [1, 2, 4]


def rows(number: int) -> Rows:
    torch.manual_seed(0)
    scores = torch.rand(number, len(EXITS)).cumsum(1)
    return Rows(scores, scores + 0.1 * torch.randn_like(scores), torch.tensor([1.0, 2.0, 4.0]).expand(number, -1))


@pytest.mark.parametrize("number", [1, 3, 500])
@pytest.mark.parametrize("target", ["quality", "gain"])
def test_prices_reach_from_all_images_deep_to_all_shallow(target: str, number: int) -> None:
    """In rising order, with shares that sum to one and a mean depth that never rises."""
    table = price_table(rows(number), EXITS, TARGETS[target], [0.01, 0.5])
    prices, shares = [one["price"] for one in table], torch.tensor([one["shares"] for one in table])
    assert prices == sorted(set(prices))
    assert len(table) <= STEPS + 4
    assert shares[0].tolist() == [0, 0, 1]
    assert shares[-1].tolist() == [1, 0, 0]
    torch.testing.assert_close(shares.sum(1), torch.ones(len(table)))
    depth = shares @ torch.tensor([1.0, 2.0, 4.0])
    assert (depth.diff() <= 1e-6).all()


def test_a_beta_has_the_price_with_which_the_gate_runs() -> None:
    """For a gate that predicts quality it is beta itself; for one that ranks, that of the best mean utility."""
    held = rows(50)
    for name in ("quality", "gain"):
        target = TARGETS[name]
        table = {one["beta"]: one["price"] for one in price_table(held, EXITS, target, [0.2])}
        assert table[0.2] == target.price(held, EXITS, 0.2, None).of_score
