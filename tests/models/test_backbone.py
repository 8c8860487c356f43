"""Any timm model as a backbone."""

import pytest
import torch

from src.models.backbone import STRIDES, Backbone

SWIN = {"strict_img_size": False, "always_partition": True}


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
def test_features_come_at_their_strides(size: tuple[int, int]) -> None:
    """A Swin at sizes it was not made for: a map per stride, rounded up, in the channels it announces."""
    backbone = Backbone("swin_tiny_patch4_window7_224", output_norm=True, options=SWIN).eval()
    features = backbone(torch.randn(1, 3, *size))
    assert list(features) == list(STRIDES)
    for stride, feature in features.items():
        assert feature.shape == (1, backbone.channels[stride], -(-size[0] // stride), -(-size[1] // stride))


def test_normalisation_is_what_the_weights_were_trained_with() -> None:
    """Mean and standard deviation follow the model, in 0..255, unless they are given."""
    assert Backbone("tf_efficientnet_lite0").mean == (127.5, 127.5, 127.5)
    assert Backbone("resnet10t", mean=[1.0, 2.0, 3.0]).mean == (1.0, 2.0, 3.0)


def test_a_frozen_norm_has_no_parameters() -> None:
    """`freeze_norm` turns every batch norm into a constant, in training too."""
    backbone = Backbone("resnet10t", freeze_norm=True).train()
    images = torch.randn(2, 3, 64, 64)
    before = backbone(images)[32]
    assert torch.equal(backbone(images)[32], before)
    assert not any("bn" in name for name, _ in backbone.named_parameters())


def test_a_size_that_the_model_refuses_is_said_in_one_line() -> None:
    """A model of fixed size names itself and the size."""
    with pytest.raises(ValueError, match=r"'swin_tiny_patch4_window7_224' takes no images of 64x96"):
        Backbone("swin_tiny_patch4_window7_224")(torch.randn(1, 3, 64, 96))


def test_a_model_without_the_strides_is_refused() -> None:
    """The error lists the strides it has."""
    with pytest.raises(ValueError, match=r"strides \[16, 16, 16\], expected \[4, 8, 16, 32\]"):
        Backbone("vit_tiny_patch16_224")
