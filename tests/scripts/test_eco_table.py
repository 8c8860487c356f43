"""The tables of the trade-off."""

import pytest

from scripts.eco_table import Row, markdown, share
from scripts.tables import mean_and_deviation


def rows(seed: int = 0, gate: float = 0.75) -> list[Row]:
    """Two exits, and a gate between chance and the oracle."""
    chances = {"exit 1": (0.6, 0.6), "exit 2": (0.7, 0.7), "gate exit": (gate, 0.65), "oracle": (0.9, 0.66)}
    return [
        Row("A", seed, choice, beta, quality, quality - beta, 1.0, 2.0, chance)
        for beta in (0.0, 0.01)
        for choice, (quality, chance) in chances.items()
    ]


def test_share_of_the_headroom() -> None:
    """0 is chance with as many exits, 1 the oracle."""
    choices = {row.choice: row for row in rows() if row.beta == 0.01}
    gate = choices["gate exit"]
    assert share(choices, "gate exit") == pytest.approx((0.75 - 0.65) / (0.9 - 0.65))
    assert share(choices | {"gate exit": gate._replace(quality=0.65, utility=0.64)}, "gate exit") == 0
    assert share(choices, "oracle") == 1


def test_utilities_stand_in_points_by_beta() -> None:
    """The best fixed exit first; then the shares."""
    lines = markdown(rows()).splitlines()
    assert "| 0.01 | 69.00 | 74.00 | 89.00 |" in lines
    assert "| 0.01 | 40 | 100 |" in lines


def test_points_of_the_curve() -> None:
    """A fixed exit stands once, a gate at every beta."""
    text = markdown(rows()).split("| GFLOPs |")[1]
    assert text.count("| exit 1 |") == 1
    assert text.count("| gate exit |") == 2


def test_seeds_are_averaged() -> None:
    """With the standard deviation of a sample; one seed has none."""
    assert mean_and_deviation([1.0, 2.0, 3.0]) == "2.00 ± 1.00"
    assert mean_and_deviation([1.0]) == "1.00"
    text = markdown([*rows(0, gate=0.7), *rows(1, gate=0.8)])
    assert "75.00 ± 7.07" in text
