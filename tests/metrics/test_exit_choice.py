from itertools import pairwise

import pytest
import torch
from torch import Tensor

from src.metrics.budget import Budget
from src.metrics.exit_choice import (
    best_exit,
    best_price,
    beta_for_budget,
    crossings,
    histogram,
    mean_cost,
    outcome,
    taken,
    utility,
)

DEPTHS = [2, 3, 5, 6]


def make_qualities(count: int = 64, seed: int = 0) -> Tensor:
    """Random qualities, half of them in eighths, so that many are equal."""
    torch.manual_seed(seed)
    quality = torch.rand(count, len(DEPTHS))
    quality[::2] = (quality[::2] * 8).round() / 8
    return quality


def make_costs(count: int = 64) -> Tensor:
    """GMAC that rise with depth, of images of several sizes."""
    torch.manual_seed(1)
    return (torch.rand(count, 1) + 0.5) * (10 + torch.tensor(DEPTHS))


@pytest.mark.parametrize("seed", range(5))
def test_a_dearer_layer_never_gives_a_deeper_exit(seed: int) -> None:
    """As beta grows, no image's best exit gets deeper, and in the end all take the shallowest."""
    quality = make_qualities(seed=seed)
    betas = [0, 2**-9, 2**-5, 2**-4, 3 / 32, 2**-3, 2**-2, 2**-1, 1, 2]
    choices = [best_exit(quality, DEPTHS, beta) for beta in betas]
    assert all((later <= earlier).all() for earlier, later in pairwise(choices))
    assert choices[0].max() == len(DEPTHS) - 1
    assert choices[-1].max() == 0


def test_free_layers_give_the_best_quality() -> None:
    """At beta 0 the best exit is that of greatest quality, the shallowest where several have it."""
    quality = make_qualities()
    choice = best_exit(quality, DEPTHS, 0)
    for row, exit_ in zip(quality.tolist(), choice.tolist(), strict=True):
        assert exit_ == row.index(max(row))
    assert best_exit(torch.full((1, 4), 0.5), DEPTHS, 0).tolist() == [0]


@pytest.mark.parametrize(("beta", "expected"), [(0.0, [1, 0, 2]), (0.07, [1, 1, 1]), (0.3, [3, 0, 0])])
def test_histogram_by_hand(beta: float, expected: list[int]) -> None:
    """Three images leave where a calculation by hand has them leave, and an exit that none takes counts 0."""
    quality = torch.tensor([[0.5, 0.6, 0.65], [0.5, 0.5, 0.9], [0.8, 0.7, 0.7]])
    assert histogram(best_exit(quality, [1, 2, 3], beta), 3) == expected


def test_exits_pay_by_depth() -> None:
    """From exit 2 to exit 6 an image pays four layers, though they are neighbours."""
    quality = torch.tensor([[0.5, 0.7]])
    assert best_exit(quality, [2, 6], 0.04).tolist() == [1]
    assert best_exit(quality, [2, 6], 0.06).tolist() == [0]
    assert utility(quality, [2, 6], 0.1)[0].tolist() == pytest.approx([0.5 - 0.2, 0.7 - 0.6])


def test_outcome_of_a_choice() -> None:
    """A choice comes to the means of what each image has at its exit."""
    quality, cost, beta = make_qualities(), make_costs(), 0.03
    choice = torch.randint(len(DEPTHS), (len(quality),))
    rows = [
        (float(q[k]), float(q[k]) - beta * DEPTHS[k], DEPTHS[k], float(c[k]))
        for q, c, k in zip(quality, cost, choice.tolist(), strict=True)
    ]
    expected = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    assert outcome(taken(choice, len(DEPTHS)), quality, cost, DEPTHS, beta) == pytest.approx(expected)


def test_outcome_of_chances() -> None:
    """One share for all images comes to the expectation over exits drawn with those chances."""
    quality, cost, beta = make_qualities(), make_costs(), 0.03
    chances = [0.1, 0.2, 0.3, 0.4]
    expected = [0.0] * 4
    for q, c in zip(quality.tolist(), cost.tolist(), strict=True):
        for k, chance in enumerate(chances):
            values = (q[k], q[k] - beta * DEPTHS[k], DEPTHS[k], c[k])
            expected = [total + chance * value / len(quality) for total, value in zip(expected, values, strict=True)]
    assert outcome(torch.tensor(chances), quality, cost, DEPTHS, beta) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.01, 0.1, 1.0])
def test_no_fixed_exit_beats_the_oracle(beta: float) -> None:
    """The oracle's utility is at least that of every image at the same exit, whichever it is."""
    quality, cost = make_qualities(), make_costs()
    oracle = outcome(taken(best_exit(quality, DEPTHS, beta), 4), quality, cost, DEPTHS, beta)
    for share in torch.eye(4):
        assert outcome(share, quality, cost, DEPTHS, beta).utility <= oracle.utility + 1e-12


@pytest.mark.parametrize("part", [0.0, 0.01, 0.2, 0.5, 0.9, 1.0])
def test_the_least_beta_within_budget(part: float) -> None:
    """At the beta of a budget the mean cost is within it, and at a slightly smaller beta it is not."""
    quality, cost = make_qualities(), make_costs()
    least, most = cost[:, 0].double().mean(), cost[:, -1].double().mean()
    budget = float(torch.lerp(least, most, part))
    beta = beta_for_budget(quality, cost, DEPTHS, Budget(budget))
    assert mean_cost(quality, cost, DEPTHS, beta) <= budget
    assert (beta == 0) == (mean_cost(quality, cost, DEPTHS, 0) <= budget)
    if beta:
        assert mean_cost(quality, cost, DEPTHS, beta * (1 - 1e-9)) > budget


def test_the_smallest_budget() -> None:
    """The mean cost of the shallowest exit is a budget, met with every image there."""
    quality, cost = make_qualities(), make_costs()
    beta = beta_for_budget(quality, cost, DEPTHS, Budget(float(cost[:, 0].double().mean())))
    assert best_exit(quality, DEPTHS, beta).max() == 0
    assert mean_cost(quality, cost, DEPTHS, beta * (1 - 1e-9)) > cost[:, 0].double().mean()


@pytest.mark.parametrize("seed", range(3))
def test_crossings_are_where_choices_change(seed: int) -> None:
    """At any price, an image takes the exit with as many crossings above the price before it."""
    quality = make_qualities(seed=seed)
    past = crossings(quality, DEPTHS)
    assert (past[:, 1:] <= past[:, :-1]).all()
    for price in torch.linspace(-1.1, 1.1, 23).tolist():
        assert (best_exit(quality, DEPTHS, price + 1e-5) == (past > price + 1e-5).sum(1)).all()


@pytest.mark.parametrize("beta", [0.0, 0.01, 0.1, 1.0])
def test_the_best_price_is_the_best_of_all(beta: float) -> None:
    """No price that any image could change its exit at gives a greater mean utility of the true qualities."""
    scores, quality = make_qualities(), make_qualities(seed=1) + 0.2 * make_qualities()

    def worth(price: float) -> float:
        return float(utility(quality, DEPTHS, beta).gather(1, best_exit(scores, DEPTHS, price)[:, None]).mean())

    found = worth(best_price(scores, quality, DEPTHS, beta))
    edges = crossings(scores, DEPTHS).flatten().unique()
    between = [*((edges[1:] + edges[:-1]) / 2).tolist(), float(edges[0]) - 1, float(edges[-1]) + 1]
    assert found == pytest.approx(max(map(worth, between)), abs=1e-12)


def test_a_larger_beta_never_gives_a_smaller_price() -> None:
    """In the end it is one at which no image goes on."""
    scores = make_qualities()
    quality = scores + 0.3 * make_qualities(seed=1)
    prices = [best_price(scores, quality, DEPTHS, beta) for beta in torch.linspace(0, 1.5, 61).tolist()]
    assert prices == sorted(prices)
    assert len(set(prices)) > 5
    assert best_exit(scores, DEPTHS, prices[-1]).max() == 0


@pytest.mark.parametrize("part", [0.0, *(i / 11 for i in range(1, 11)), 1.0])
def test_any_budget_is_met_within_an_image(part: float) -> None:
    """If the price may be negative: within the budget, and the next image that would go on exceeds it."""
    quality, cost = torch.rand(64, len(DEPTHS), generator=torch.Generator().manual_seed(0)), make_costs()
    budget = float(torch.lerp(cost[:, 0].double().mean(), cost[:, -1].double().mean(), part))
    beta = beta_for_budget(quality, cost, DEPTHS, Budget(budget), least=-float("inf"))
    found = mean_cost(quality, cost, DEPTHS, beta)
    assert 0 <= budget - found <= float((cost[:, -1] - cost[:, 0]).max()) / len(cost)


@pytest.mark.parametrize("budget", [11.9, 16.1, float("nan")])
def test_a_budget_out_of_range(budget: float) -> None:
    """A budget that no beta meets, or that every exit meets, is a ValueError with the budget and the range."""
    cost = (10 + torch.tensor(DEPTHS)).float().expand(8, -1)
    said = rf"budget_gflops={budget:g}: expected 12 \(every image at exit 2\) to 16 \(at exit 6\)"
    with pytest.raises(ValueError, match=said):
        beta_for_budget(make_qualities(8), cost, DEPTHS, Budget(budget))
