"""The whole model, where images leave the encoder one by one."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from src.config.build import build_run
from src.models.gate import Gate, gate_inputs
from src.models.mask2former import Mask2Former
from tests.helpers import SMALL_MODEL, TINY_SHAPES


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.linspace(0.2, 3, 8)[:, None, None, None] * torch.randn(8, 3, 64, 96)


@pytest.fixture
def model(images: Tensor, configure: Callable[..., DictConfig]) -> Mask2Former:
    """Small, with random weights, and a gate that tells the images apart and sends them to several exits.

    Two of 64 channels share a group norm: with one channel to a group, the mean over tokens would be that of the norm.
    """
    settings = ["+experiment=eco_parent_shapes", "model/gate=linear", *TINY_SHAPES, *SMALL_MODEL, "dim=64"]
    model = build_run(configure(*settings, "callbacks=[]")).task.model.eval()
    assert isinstance(model.gate, Gate)
    with torch.no_grad():
        torch.nn.init.xavier_uniform_(model.gate.head.weight)
        levels, _ = model.pixel_decoder.project(model.backbone(images))
        (pooled,) = gate_inputs(levels, ["mean32"]).values()
        model.gate.absorb(pooled.mean(0), pooled.std(0))
    return model


def test_a_gated_batch_is_eight_single_runs(model: Mask2Former, images: Tensor) -> None:
    """Exits are equal and logits within 1e-5, though exits are mixed."""
    with torch.no_grad():
        prediction, depths = model.leave(images)
        assert len(set(depths)) > 2
        for image, depth in enumerate(depths):
            single, (alone,) = model.leave(images[image : image + 1])
            assert alone == depth
            for ours, expected in zip(prediction, single, strict=True):
                torch.testing.assert_close(ours[image : image + 1], expected, atol=1e-5, rtol=1e-5)


def test_leaving_at_an_exit_is_that_exit(model: Mask2Former, images: Tensor) -> None:
    """What is chosen for all images alike is what `forward` gives for it."""
    with torch.no_grad():
        prediction, depths = model.leave(images, lambda levels: [2] * len(levels[0]))
        expected = model(images, [2])[2]
    assert depths == [2] * 8
    torch.testing.assert_close(prediction.mask_logits, expected[-1].mask_logits, atol=1e-5, rtol=1e-5)


def test_nothing_chooses_without_a_gate(model: Mask2Former, images: Tensor) -> None:
    """A model without a gate raises an error that names the setting."""
    model.gate = None
    with pytest.raises(ValueError, match=r"model\.gate=null"):
        model.leave(images)
