"""Verdicts on made tables whose truth is known: a gate that knows the signal, and one that knows nothing."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from src.metrics.bootstrap import Estimate
from src.metrics.exit_choice import best_exit
from src.metrics.judgement import Judgement, Route, Rows, Trial, judge
from src.metrics.routing import chosen, fixed, shares
from src.metrics.verdict import UNDECIDED, verdict_of
from tests.metrics.made_up import BETA, DEPTHS, Made, make

TABLES, IMAGES, RESAMPLES = 100, 400, 100  # enough for shares of tables, in a second


def gate_of(made: Made, known: float, seed: int) -> Tensor:
    """A gate that follows the signal for a share of the images, and is random on the others."""
    chance = torch.Generator().manual_seed(seed)
    follows = torch.rand(len(made.signal), generator=chance) < known
    anything = torch.randint(len(DEPTHS), (len(made.signal),), generator=chance)
    return torch.where(follows, best_exit(made.signal, DEPTHS, BETA), anything)


def judged(made: Made, choice: Tensor | None, again: bool = True, seed: int = 0) -> Judgement:
    rows = Rows(made.first, made.cost, DEPTHS, made.second if again else None)
    route = None if choice is None else Route(choice, made.signal, range(5))
    return judge(rows, Trial(BETA, resamples=RESAMPLES, seed=seed), route)


def judgements(kind: str, known: float | None) -> Iterator[Judgement]:
    for seed in range(TABLES):
        made = make(kind, IMAGES, seed)
        yield judged(made, None if known is None else gate_of(made, known, seed), seed=seed)


@pytest.mark.parametrize(
    ("kind", "known", "right"),
    [
        ("function", 1.0, "gate it"),
        ("mix", 1.0, "gate it"),
        ("noise", 1.0, "take exit 4"),
        ("function", 0.0, "take exit 4"),
        ("mix", 0.0, "take exit 4"),
        ("noise", 0.0, "take exit 4"),
    ],
)
def test_the_verdict_is_right(kind: str, known: float, right: str) -> None:
    """In at least 95 of 100 tables: a gate is worth it where it knows something, and there is something to know."""
    assert sum(one.verdict.answer == right for one in judgements(kind, known)) >= 95


@pytest.mark.parametrize("kind", ["function", "mix"])
def test_no_useless_gate_is_recommended(kind: str) -> None:
    """In more than 5 of 100 tables where three fixed exits are nearly equal, so that the best is hard to tell."""
    answers = [judged(made, gate_of(made, 0.0, seed), seed=seed).verdict.answer for seed, made in near_ties(kind)]
    assert sum(answer == "gate it" for answer in answers) <= 5


def near_ties(kind: str) -> Iterator[tuple[int, Made]]:
    for seed in range(TABLES):
        yield seed, make(kind, IMAGES, seed, peak=0.002)


@pytest.mark.parametrize(("kind", "least", "most"), [("function", 95, 100), ("mix", 95, 100), ("noise", 0, 5)])
def test_a_table_without_gates(kind: str, least: int, most: int) -> None:
    """Where there is something to know a gate can earn it; where all is noise, none is said to."""
    assert least <= sum(one.verdict.answer.startswith("a gate can earn") for one in judgements(kind, None)) <= most


@pytest.mark.parametrize("known", [1.0, 0.5])
def test_efficacy_is_what_the_gate_knows(known: float) -> None:
    """Its interval contains the share of images that the gate understands in about 95 of 100 tables."""
    found = [one.figures["efficacy"] for one in judgements("mix", known)]
    assert sum(one.low <= known <= one.high for one in found) >= 89
    assert sum(one.value for one in found) / TABLES == pytest.approx(known, rel=0.03)
    assert max(one.high - one.low for one in found) < 0.3


@pytest.mark.parametrize("known", [1.0, 0.5])
def test_intervals_cover_the_true_leads(known: float) -> None:
    """In about 95 of 100 tables; the truth is that of very many images."""
    many = make("mix", 200_000, TABLES)
    weights = torch.full((1, 200_000), 1 / 200_000, dtype=torch.float64)
    about, choice = (many.signal, many.cost, DEPTHS, BETA), gate_of(many, known, 0)
    gate, every = chosen(weights, choice, *about).utility, fixed(weights, *about)
    over_best = float(gate - every.utility.max())
    over_chance = float(gate - every.mixed(shares(weights, choice, 5)).utility)
    found = [one.figures for one in judgements("mix", known)]
    assert sum(one["lead"].low <= over_best <= one["lead"].high for one in found) >= 89
    assert sum(one["lead_over_chance"].low <= over_chance <= one["lead_over_chance"].high for one in found) >= 89


def test_efficacy_is_unknown_without_headroom() -> None:
    """A ratio to nearly nothing would be wild; and without a second measurement there is no ceiling."""
    assert sum("efficacy" in one.figures for one in judgements("noise", 1.0)) <= 5
    made = make("mix", IMAGES, 0)
    figures = judged(made, gate_of(made, 1.0, 0), again=False).figures
    assert not {"efficacy", "headroom", "cross_lead"} & figures.keys()
    assert "oracle_lead" in figures


def test_qualities_may_have_any_sign() -> None:
    """Minus a loss, for example: leads and verdict are those of shifted qualities."""
    made = make("mix", IMAGES, 3)
    lower = Made(*(values - 7 for values in made[:3]), made.cost)
    one, other = (judged(some, gate_of(some, 1.0, 0)) for some in (made, lower))
    assert one.verdict.answer == other.verdict.answer == "gate it"
    for name, figure in one.figures.items():
        assert tuple(figure) == pytest.approx(tuple(other.figures[name]), abs=1e-6)


def test_a_gate_with_some_of_the_exits() -> None:
    """It is compared with all fixed exits, and takes none that it lacks."""
    made = make("mix", IMAGES, 0)
    columns = torch.tensor([0, 4])
    choice = columns[best_exit(made.signal[:, columns], [2, 6], BETA)]
    rows = Rows(made.first, made.cost, DEPTHS)
    one = judge(rows, Trial(BETA, resamples=RESAMPLES), Route(choice, made.signal[:, columns], columns.tolist()))
    assert set(one.policies) == {*(f"exit{depth}" for depth in DEPTHS), "gate", "random", "oracle"}
    assert [depth for depth, share in one.taken.items() if share] == [2, 6]
    assert one.figures["auroc"].low > 0.7


def test_words_for_every_outcome() -> None:
    """An open question says how many images would close it."""
    about = (4, 1000, 0.002)
    lead = Estimate(0.001, -0.003, 0.005)
    chance = Estimate(0.004, 0.001, 0.007)
    open_ = verdict_of({"lead": lead, "lead_over_chance": chance}, *about)
    assert open_.answer == UNDECIDED
    assert open_.images_needed == 16000  # the interval has to shrink to a quarter
    assert "about 16000 images" in open_.why
    tiny = Estimate(0.0005, 0.0001, 0.0009)
    assert verdict_of({"lead": tiny, "lead_over_chance": chance}, *about).answer == "take exit 4"
    small_headroom = {"lead": lead, "lead_over_chance": chance, "headroom": tiny}
    assert verdict_of(small_headroom, *about).answer == "take exit 4"
    assert verdict_of({"oracle_lead": tiny}, *about).answer == "take exit 4"
    unknown = verdict_of({"oracle_lead": Estimate(0.02, 0.01, 0.03)}, *about)
    assert unknown.answer == "a gate can earn up to 0.0200"
    assert "--again" in unknown.why
    assert verdict_of({"oracle_lead": Estimate(0.003, 0.001, 0.005)}, *about).images_needed == 4000
