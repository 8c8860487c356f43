"""The max-pool of the light pixel embedding."""

import pytest
import torch
import torch.nn.functional as F

from src.models.pooling import STRIP_PIXELS, MaxPool3x3


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 1), (2, 2), (33, 47), (3, 2 * STRIP_PIXELS)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_at_inference_it_equals_torchs_pool(size: tuple[int, int], layout: torch.memory_format) -> None:
    """To the bit: strips of one row and of several, maps smaller than the window, negative and infinite values."""
    x = torch.randn(2, 3, *size).sub_(2).contiguous(memory_format=layout)
    x[0, 0, 0, 0] = torch.inf
    x[1, 1, -1, -1] = -torch.inf
    with torch.inference_mode():
        assert torch.equal(MaxPool3x3()(x), F.max_pool2d(x, 3, stride=1, padding=1))


def test_in_training_one_place_takes_the_gradient() -> None:
    """Also where several are the maximum, as in the published model."""
    x = torch.zeros(1, 1, 1, 3, requires_grad=True)
    MaxPool3x3()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [2, 1, 0]
