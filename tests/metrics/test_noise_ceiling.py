"""The part of the oracle's lead that two measurements agree on."""

import pytest
import torch

from src.metrics.exit_choice import best_exit
from src.metrics.noise_ceiling import ceiling, cross_lead, positive, transport
from src.metrics.routing import chosen, fixed, shares
from tests.metrics.made_up import BETA, DEPTHS, Made, make

COUNT = 1000
SAMPLE = torch.full((1, COUNT), 1 / COUNT, dtype=torch.float64)


def oracle_leads(made: Made) -> tuple[float, float]:
    """Of the oracle of the first measurement, over the best fixed exit and over chance."""
    about = (made.first, made.cost, DEPTHS, BETA)
    choice = best_exit(made.first, DEPTHS, BETA)
    every, oracle = fixed(SAMPLE, *about), chosen(SAMPLE, choice, *about).utility
    return float(oracle - every.utility.max()), float(oracle - every.mixed(shares(SAMPLE, choice, 5)).utility)


def test_without_noise_the_ceiling_is_the_oracle() -> None:
    """Its results and both leads, exactly."""
    made = make("mix", COUNT, 0)
    found = ceiling(SAMPLE, made.first, made.first, made.cost, DEPTHS, BETA)
    assert (float(found.over_best), float(found.over_chance)) == pytest.approx(oracle_leads(made))
    expected = chosen(SAMPLE, best_exit(made.first, DEPTHS, BETA), made.first, made.cost, DEPTHS, BETA)
    assert [float(value) for value in found.outcomes] == pytest.approx([float(value) for value in expected])


def test_of_noise_alone_next_to_nothing_is_left() -> None:
    """On average over tables less than a twentieth of what the oracle leads by."""
    kept, whole = 0.0, 0.0
    for seed in range(30):
        made = make("noise", COUNT, seed)
        kept += float(ceiling(SAMPLE, made.first, made.second, made.cost, DEPTHS, BETA).over_best)
        whole += oracle_leads(made)[0]
    assert kept < whole / 20


def test_of_a_mix_the_signal_is_left() -> None:
    """On average over tables within a twentieth of the lead of an oracle that knows the signal."""
    kept, true, cross = 0.0, 0.0, 0.0
    for seed in range(30):
        made = make("mix", COUNT, seed)
        kept += float(ceiling(SAMPLE, made.first, made.second, made.cost, DEPTHS, BETA).over_best)
        cross += float(cross_lead(SAMPLE, made.first, made.second, made.cost, DEPTHS, BETA))
        true += oracle_leads(made._replace(first=made.signal))[0]
    assert kept == pytest.approx(true, rel=0.05)
    assert cross < true


def test_a_covariance_keeps_the_trace() -> None:
    """Of what is none; a covariance stays, and a negative trace gives nothing."""
    torch.manual_seed(0)
    rows = torch.randn(20, 6, 5, dtype=torch.float64)
    sound = rows.mT @ rows
    torch.testing.assert_close(positive(sound), sound)
    mixed = torch.randn(200, 5, 5, dtype=torch.float64)
    found = positive(mixed)
    torch.testing.assert_close(
        found.diagonal(dim1=1, dim2=2).sum(1), mixed.diagonal(dim1=1, dim2=2).sum(1).clamp(min=0)
    )
    assert torch.linalg.eigvalsh(found).min() > -1e-9
    assert not positive(-sound).any()


def test_transport_gives_the_covariance_asked_for() -> None:
    """By a symmetric matrix, also where the source has directions without variance."""
    torch.manual_seed(0)
    rows = torch.randn(2, 9, 30, 5, dtype=torch.float64)
    source, goal = (rows - rows.mean(3, keepdim=True)).mT @ (rows - rows.mean(3, keepdim=True))
    matrix = transport(source, goal)
    torch.testing.assert_close(matrix @ source @ matrix.mT, goal)
    torch.testing.assert_close(matrix, matrix.mT)
