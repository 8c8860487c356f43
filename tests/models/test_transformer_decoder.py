"""The decoder: what it leaves out at inference, and masks at the size of a level."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.transformer_decoder import TransformerDecoder, attention_mask, shrunk

DIM, SIZES = 16, [(2, 3), (4, 5), (7, 10)]


@pytest.fixture
def memory() -> tuple[Tensor, list[Tensor]]:
    """Mask features and levels of two images; no size is a multiple of another."""
    torch.manual_seed(0)
    return torch.randn(2, DIM, 14, 19), [torch.randn(2, DIM, *size) for size in SIZES]


@pytest.mark.parametrize("size", SIZES)
def test_masks_of_shrunk_features_are_shrunk_masks(memory, size: tuple[int, int]) -> None:
    """A query may look where its full-size mask, resized to the level, is positive; everywhere if that is nowhere."""
    mask_features, _ = memory
    kernels = torch.randn(2, 6, DIM)
    kernels[0, 0] = 0 * kernels[0, 0]  # exactly zero: inside
    masks = torch.einsum("bqc,bchw->bqhw", kernels, mask_features)
    resized = F.interpolate(masks, size, mode="bilinear", align_corners=False).flatten(2)
    found = attention_mask(kernels, shrunk(mask_features, torch.empty(2, DIM, *size)))
    certain = resized.abs() > 1e-5
    empty = (resized < 0).all(-1, keepdim=True)
    assert torch.equal(found[certain], ((resized >= 0) | empty)[certain])
    nowhere = attention_mask(torch.ones(2, 6, DIM), -torch.ones(2, DIM, *size))
    assert nowhere.all()


@torch.no_grad()
def test_the_last_prediction_alone_is_the_last_of_all(memory) -> None:
    """Leaving out what training alone needs changes nothing, to the bit."""
    decoder = TransformerDecoder(3, DIM, num_queries=5, num_layers=4, num_heads=2, dim_feedforward=8).eval()
    *_, expected = every = decoder(*memory)
    (last,) = decoder(*memory, last_only=True)
    assert len(every) == 5
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(last, expected, strict=True))


def test_masks_that_guide_attention_carry_no_gradient(memory) -> None:
    """Mask features are trained by the masks that are returned, not by where queries look."""
    decoder = TransformerDecoder(3, DIM, num_queries=5, num_layers=2, num_heads=2, dim_feedforward=8)
    mask_features, levels = memory
    mask_features.requires_grad_()
    predictions = decoder(mask_features, levels)
    sum(prediction.class_logits.sum() for prediction in predictions).backward()
    assert mask_features.grad is None
