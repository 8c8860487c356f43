"""Intervals over images."""

import torch
from torch import Tensor

from src.metrics import bootstrap
from src.metrics.bootstrap import estimate, likeness_of_neighbours, resamples


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


def test_blocks_are_neighbours() -> None:
    """A resample of blocks as long as the sample is the sample; else each image comes with most of its neighbours."""
    whole = torch.full((20,), 1 / 20, dtype=torch.float64)
    for weights in resamples(20, 30, 0, block=20):
        torch.testing.assert_close(weights, whole.expand_as(weights))
    for block, alike in ((1, 0.0), (10, 0.9)):
        times = torch.cat(list(resamples(1000, 50, 0, block)))[1:] * 1000
        assert (times.round().sum(1) == 1000).all()
        pairs = torch.stack([times, times.roll(1, 1)]).flatten(1)
        assert abs(float(torch.corrcoef(pairs)[0, 1]) - alike) < 0.03


def test_blocks_widen_the_interval_of_repeated_images() -> None:
    """Each of 100 images 10 times in a row: as wide as that of the 100, not a third of it; likeness shows it."""
    values = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    repeated = values.repeat_interleave(10)

    def width(sample: Tensor, block: int) -> float:
        found = estimate(torch.cat([weights @ sample for weights in resamples(len(sample), 1000, 0, block)]))
        return found.high - found.low

    assert 0.25 < width(repeated, 1) / width(values, 1) < 0.4
    assert 0.8 < width(repeated, 10) / width(values, 1) < 1.1
    exits = values[:, None] * torch.tensor([0.0, 1.0])
    assert likeness_of_neighbours(exits.repeat_interleave(10, 0)) > 0.8
    assert abs(likeness_of_neighbours(exits)) < 0.3
    assert likeness_of_neighbours(torch.ones(50, 3)) == 0


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
