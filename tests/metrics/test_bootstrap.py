"""Intervals over images."""

import torch

from src.metrics import bootstrap
from src.metrics.bootstrap import estimate, resamples


def test_weights_are_those_of_draws_with_replacement() -> None:
    """The sample first; then each row is counts of N draws, and no two rows are alike."""
    whole = torch.cat(list(resamples(50, 300, 0)))
    assert whole.shape == (301, 50)
    assert torch.equal(whole[0], torch.full((50,), 1 / 50, dtype=torch.float64))
    times = whole[1:] * 50
    torch.testing.assert_close(times, times.round())
    assert (times.round().sum(1) == 50).all()
    assert abs(float(times.var(1).mean()) - 49 / 50) < 0.05
    assert len(whole.unique(dim=0)) == 301


def test_weights_repeat() -> None:
    """They follow from the seed."""
    one, two, other = (torch.cat(list(resamples(20, 30, seed))) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_no_chunk_is_large(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Memory is bounded, whatever the number of images."""
    monkeypatch.setattr(bootstrap, "ELEMENTS", 100)
    assert [len(part) for part in resamples(30, 10, 0)] == [1, 3, 3, 3, 1]
    assert [len(part) for part in resamples(1000, 2, 0)] == [1, 1, 1]


def test_an_interval_covers_the_truth() -> None:
    """In about 95 of 100 samples, here of a skewed figure."""
    chance = torch.Generator().manual_seed(0)
    covered = 0
    for seed in range(100):
        values = torch.empty(200, dtype=torch.float64).exponential_(1.0, generator=chance)
        found = estimate(torch.cat([weights @ values for weights in resamples(200, 300, seed)]))
        assert found.low < found.value < found.high
        covered += found.low <= 1 <= found.high
    assert covered >= 88
