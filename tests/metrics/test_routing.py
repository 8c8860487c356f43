"""What a choice of exits earns beyond fixed exits and chance."""

import pytest
import torch
from torch import Tensor

from src.metrics.bootstrap import resamples
from src.metrics.exit_choice import best_exit, outcome, taken
from src.metrics.routing import auroc, chosen, corners, deeper_is_better, fixed, hull, shares
from tests.metrics.made_up import BETA, DEPTHS, make

SAMPLE = torch.full((1, 300), 1 / 300, dtype=torch.float64)


def test_results_are_those_of_exit_choice() -> None:
    """Of fixed exits, of a choice, and of random exits with its histogram, on the sample."""
    made = make("mix", 300, 0)
    about = (made.first, made.cost, DEPTHS, BETA)
    choice = best_exit(made.second, DEPTHS, BETA)
    share = shares(SAMPLE, choice, 5)
    every = fixed(SAMPLE, *about)
    for ours, expected in (
        (chosen(SAMPLE, choice, *about), outcome(taken(choice, 5), *about)),
        (every.mixed(share), outcome(share[0], *about)),
        (every.at(3), outcome(torch.eye(5)[3], *about)),
    ):
        assert [float(value) for value in ours] == pytest.approx([expected.quality, expected.utility, expected.gflops])


def test_weights_stand_for_repeated_images() -> None:
    """A resample's figures are those of its images, one by one."""
    made = make("mix", 40, 1)
    choice = best_exit(made.second, DEPTHS, BETA)
    *_, weights = resamples(40, 5, 0)
    for row in weights:
        images = torch.arange(40).repeat_interleave((row * 40).round().long())
        plain = torch.full((1, 40), 1 / 40, dtype=torch.float64)
        ours = chosen(row[None], choice, made.first, made.cost, DEPTHS, BETA)
        slow = chosen(plain, choice[images], made.first[images], made.cost[images], DEPTHS, BETA)
        assert float(ours.utility) == pytest.approx(float(slow.utility))
        torch.testing.assert_close(shares(row[None], choice, 5), shares(plain, choice[images], 5))


def at(cost: list[float], quality: list[float], where: float) -> float:
    row = [torch.tensor([values], dtype=torch.float64) for values in (cost, quality)]
    return float(hull(*row, torch.tensor([where], dtype=torch.float64)))


@pytest.mark.parametrize(
    ("where", "expected"), [(1, 0.2), (1.5, 0.4), (2, 0.6), (3, 0.65), (4, 0.7), (4.5, 0.7), (5, 0.7), (0.5, 0.2)]
)
def test_the_hull_by_hand(where: float, expected: float) -> None:
    """Lines between exits; the exit at cost 3 lies below them, and a worse exit that costs more changes nothing."""
    assert at([1, 2, 3, 4, 5], [0.2, 0.6, 0.61, 0.7, 0.5], where) == pytest.approx(expected)


def test_the_hull_keeps_to_no_order() -> None:
    """Of exits or of rows."""
    assert at([4, 1, 2], [0.7, 0.2, 0.6], 3) == pytest.approx(at([1, 2, 4], [0.2, 0.6, 0.7], 3))


def test_corners_by_hand() -> None:
    """The exits that the hull touches, the cheapest first."""
    assert corners(torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([0.2, 0.6, 0.61, 0.7, 0.5])) == [0, 1, 3]


def test_random_exits_do_not_pass_the_hull() -> None:
    """Whatever their shares: the hull is the best of all mixtures."""
    made = make("mix", 300, 2)
    every = fixed(SAMPLE, made.first, made.cost, DEPTHS, BETA)
    share = torch.rand(50, 5, dtype=torch.float64)
    share /= share.sum(1, keepdim=True)
    mixed = every.mixed(share)
    best = hull(every.gflops.expand(50, -1), every.quality.expand(50, -1), mixed.gflops)
    assert (mixed.quality <= best + 1e-12).all()


def slow_auroc(scores: Tensor, truth: Tensor) -> float:
    pairs = [(float(a), float(b)) for a in scores[truth] for b in scores[~truth]]
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def test_auroc_is_a_share_of_pairs() -> None:
    """Ties count half."""
    chance = torch.Generator().manual_seed(0)
    scores, truth = torch.randint(6, (80,), generator=chance).double(), torch.rand(80, generator=chance) < 0.3
    sample = torch.full((1, 80), 1 / 80, dtype=torch.float64)
    assert float(auroc(sample, scores, truth)) == pytest.approx(slow_auroc(scores, truth))
    assert float(auroc(sample, truth.double(), truth)) == pytest.approx(1)
    assert float(auroc(sample, torch.zeros(80), truth)) == pytest.approx(0.5)
    assert auroc(sample, scores, truth | True).isnan()


def test_a_weight_counts_like_so_many_images() -> None:
    """In the AUROC of a resample, and in that of neighbouring exits."""
    chance = torch.Generator().manual_seed(1)
    scores = torch.randint(6, (30, 3), generator=chance).double()
    quality = torch.rand(30, 3, generator=chance)
    drawn = torch.randint(30, (40,), generator=chance)
    weights = torch.bincount(drawn, minlength=30).double()[None] / 40
    repeated = torch.full((1, 40), 1 / 40, dtype=torch.float64)
    truth = quality[:, 0] > 0.5
    torch.testing.assert_close(auroc(weights, scores[:, 0], truth), auroc(repeated, scores[drawn, 0], truth[drawn]))
    torch.testing.assert_close(
        deeper_is_better(weights, scores, quality, [1, 2, 3], 0.01),
        deeper_is_better(repeated, scores[drawn], quality[drawn], [1, 2, 3], 0.01),
    )


def test_deeper_is_better_weighs_the_rarer_answer() -> None:
    """By hand: a pair of exits on which all images agree counts nothing."""
    quality = torch.tensor([[0.1, 0.5, 0.4], [0.1, 0.5, 0.9], [0.1, 0.5, 0.9], [0.1, 0.5, 0.4]])
    scores = torch.tensor([[0.0, 1, 0], [0, 1, 3], [0, 1, 2], [0, 1, 2.5]])
    sample = torch.full((1, 4), 0.25, dtype=torch.float64)
    assert float(deeper_is_better(sample, scores, quality, [2, 3, 4], 0.0)) == pytest.approx(0.75)
    assert deeper_is_better(sample, scores[:, :2], quality[:, :2], [2, 3], 0.0).isnan()
    assert float(deeper_is_better(sample, quality, quality, [2, 3, 4], 0.1)) == pytest.approx(1)
