"""The forms of deformable sampling compute the same, forward and backward."""

import math

import pytest
import torch
from torch import Tensor

from src.models import row_sampling
from src.models.sampling import sample_by_grid, sample_by_rows, softmax

SIZES = [(2, 3), (4, 6), (8, 11)]
FORMS = {"grid": sample_by_grid, "rows": sample_by_rows}
NUM_TOKENS = sum(h * w for h, w in SIZES)


def inputs(num_images: int = 2, num_queries: int = 7, sizes: list[tuple[int, int]] = SIZES) -> list[Tensor]:
    """Values, places and weights; most places are inside the maps, some are far outside."""
    chance = torch.Generator().manual_seed(num_queries)
    num_tokens = sum(h * w for h, w in sizes)
    value = torch.randn(num_images, num_tokens, 2, 4, generator=chance)
    shape = (num_images, num_queries, 2, len(sizes), 3)
    x, y = (torch.rand(shape, generator=chance) * 16 - 4 for _ in range(2))
    x[:, 0], y[:, 1] = -1e4, 1e4
    weights = torch.randn(shape, generator=chance)
    return [one.requires_grad_() for one in (value, x, y, weights)]


@pytest.mark.parametrize("sizes", [SIZES, [(1, 1)], [(1, 5), (7, 1)]], ids=str)
@pytest.mark.parametrize("num_images", [1, 3])
@pytest.mark.parametrize("mkl", [True, False], ids=["mkl", "no mkl"])
def test_rows_are_the_grid(
    sizes: list[tuple[int, int]], num_images: int, mkl: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums and all gradients, with places outside of the maps, in pieces that end within an image and at its end."""
    monkeypatch.setattr(row_sampling, "PIECE", 6)
    if not mkl:
        monkeypatch.setattr("torch.backends.mkl.is_available", lambda: False)
    value, x, y, weights = inputs(num_images, 9, sizes)
    results = []
    for sample in FORMS.values():
        sums = sample(value, sizes, x, y, weights)
        results.append([sums, *torch.autograd.grad(sums.square().sum(), (value, x, y, weights))])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sample", FORMS.values(), ids=FORMS)
def test_a_whole_place_is_its_pixel(sample: object) -> None:
    """Weighted, of the level that it is in; one pixel outside there is nothing."""
    value, x, y, weights = (one.detach() for one in inputs(1, 2))
    x.fill_(1), y.fill_(1), weights.zero_()
    weights[0, 0, :, 1, 0] = 2  # row 1 and column 1 of the second level, 4 x 6
    pixel = SIZES[0][0] * SIZES[0][1] + 1 * 6 + 1
    torch.testing.assert_close(sample(value, SIZES, x, y, weights)[0, 0], 2 * value[0, pixel].flatten())  # type: ignore[operator]
    x.fill_(6)
    assert sample(value, SIZES, x, y, weights).abs().max() == 0  # type: ignore[operator]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_places_that_are_not_finite_read_nothing_else(bad: float) -> None:
    """A training that diverges ends by its loss, not by an index; other queries are as before."""
    value, x, y, weights = (one.detach() for one in inputs())
    expected = sample_by_rows(value, SIZES, x, y, weights)
    x[0, 3], y[0, 3] = bad, bad
    torch.testing.assert_close(sample_by_rows(value, SIZES, x, y, weights)[:, 4:], expected[:, 4:])


def test_rows_are_a_proper_operation() -> None:
    """Torch's own checks of its schema, shapes and gradients pass, and it compiles into one graph."""
    value, x, y, weights = inputs()
    flat = [side for size in SIZES for side in size]
    torch.library.opcheck(torch.ops.ecoscale.sample_by_rows.default, (value, flat, x, y, weights))
    compiled = torch.compile(sample_by_rows, fullgraph=True, backend="aot_eager")
    gradients = [
        torch.autograd.grad(form(value, SIZES, x, y, weights).square().sum(), (value, x, y, weights))
        for form in (sample_by_rows, compiled)
    ]
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected)


def test_half_precision_is_sampled_in_float32() -> None:
    """Values in bfloat16 give the sums of their float32 values."""
    value, x, y, weights = (one.detach() for one in inputs())
    for sample in (sample_by_grid, sample_by_rows):
        half = sample(value.bfloat16(), SIZES, x, y, weights)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, sample(value.bfloat16().float(), SIZES, x, y, weights))


def test_the_short_softmax_is_torchs() -> None:
    """With its gradient, also for large scores."""
    scores = (torch.randn(2, 5, 3, 12) * 50).requires_grad_()
    factors = torch.randn(2, 5, 3, 12)
    ours, expected = softmax(scores), scores.softmax(-1)
    torch.testing.assert_close(ours, expected)
    gradients = [torch.autograd.grad((one * factors).sum(), scores)[0] for one in (ours, expected)]
    torch.testing.assert_close(*gradients)
