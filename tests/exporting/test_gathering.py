"""Sampling by gathering rows, the form of exported graphs."""

import pytest
import torch

from src.models.sampling import FORMS, form_on
from src.models.sampling_operation import Size


@pytest.mark.parametrize("sizes", [[(3, 4)], [(1, 1), (2, 3)], [(2, 3), (4, 6), (8, 12)]], ids=str)
def test_it_gives_what_torch_gives(sizes: list[Size]) -> None:
    """For places inside of the levels, on their edges, and far outside."""
    torch.manual_seed(0)
    shape = (2, 9, 2, len(sizes), 3)  # B, N, M, L, P
    value = torch.randn(2, sum(h * w for h, w in sizes), 2, 5)
    x, y = (torch.randn(shape) * 6 + 2 for _ in range(2))
    x[:, 0], y[:, 1], x[:, 2], y[:, 2] = 0.0, -1.0, 100.0, -1000.0
    x[:, 3] = x[:, 3].round()
    weights = torch.rand(shape)
    expected = FORMS["grid"](value, sizes, x, y, weights)
    torch.testing.assert_close(FORMS["gather"](value, sizes, x, y, weights), expected, atol=1e-5, rtol=1e-5)


def test_only_an_export_chooses_it() -> None:
    """It is slower than the other forms; `auto` takes one of those."""
    assert form_on(torch.device("cpu"), "auto") != "gather"
    assert form_on(torch.device("cpu"), "gather") == "gather"
