"""Scores by policy, and the Pareto set."""

import pytest

from src.records.scores import pareto_front, policies_of


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([], []),
        ([(1, 1)], [True]),
        ([(1, 1), (2, 2), (3, 2), (2, 1)], [True, True, False, False]),
        ([(2, 5), (2, 5), (2, 4)], [True, True, False]),
    ],
)
def test_nothing_on_it_is_beaten(points: list[tuple[float, float]], best: list[bool]) -> None:
    """By one that is as good for less, or better for the same; equals do not beat each other."""
    assert pareto_front(points) == best


def test_a_file_that_lacks_its_scores_names_them() -> None:
    """Those of a gate, and those of exits."""
    with pytest.raises(KeyError, match="outcomes"):
        policies_of({"beta": 0.1, "step": 3})
    with pytest.raises(KeyError, match="exits"):
        policies_of({"step": 3})
