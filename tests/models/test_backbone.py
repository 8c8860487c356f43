"""Any timm model as a backbone."""

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock

from src.metrics.operation_counts import counting, trace
from src.models.backbone import STRIDES, Backbone
from src.models.backbone_layers import PadFirstBlock, shifted_mask

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


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0", "convnext_atto"])
def test_frozen_stages_are_what_the_first_map_depends_on(name: str) -> None:
    """With one frozen stage no gradient reaches the map of stride 4, and all else is trained."""
    backbone = Backbone(name, frozen_stages=1)
    features = backbone(torch.randn(2, 3, 64, 64))
    assert not features[4].requires_grad
    free = Backbone(name)
    first = free(torch.randn(2, 3, 64, 64))[4].sum()
    found = torch.autograd.grad(first, list(free.parameters()), allow_unused=True)
    frozen = [not parameter.requires_grad for parameter in backbone.parameters()]
    assert frozen == [gradient is not None for gradient in found]
    assert any(frozen)
    assert not all(frozen)


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_a_last_stage_that_is_left_out_is_not_built(name: str) -> None:
    """`out_indices` ends the backbone at stride 16: the other maps are the same, and no parameter is left over."""
    options = SWIN if "swin" in name else {}
    whole = Backbone(name, options=options).eval()
    short = Backbone(name, options={**options, "out_indices": whole.picked[:-1]}).eval()
    short.load_state_dict({key: whole.state_dict()[key] for key in short.state_dict()})
    images = torch.randn(1, 3, 64, 64)
    features, expected = short(images), whole(images)
    assert list(features) == [4, 8, 16]
    for stride, feature in features.items():
        assert torch.equal(feature, expected[stride])
    used = torch.autograd.grad(sum(map(torch.sum, features.values())), list(short.parameters()), allow_unused=True)
    assert all(gradient is not None for gradient in used)


@pytest.mark.parametrize("kept", [[], [2, 3], [0]])
def test_a_backbone_without_its_first_maps_is_refused(kept: list[int]) -> None:
    """Only the last stages may be left out."""
    with pytest.raises(ValueError, match=r"'resnet10t'.*expected \["):
        Backbone("resnet10t", options={"out_indices": kept})


def test_more_frozen_stages_than_there_are_are_refused() -> None:
    """The error says how many there may be."""
    with pytest.raises(ValueError, match=r"frozen_stages=5: expected 0 to 4"):
        Backbone("resnet10t", frozen_stages=5)


def test_a_size_that_the_model_refuses_is_said_in_one_line() -> None:
    """A model of fixed size names itself and the size."""
    with pytest.raises(ValueError, match=r"'swin_tiny_patch4_window7_224' takes no images of 64x96"):
        Backbone("swin_tiny_patch4_window7_224")(torch.randn(1, 3, 64, 96))


def test_a_model_without_the_strides_is_refused() -> None:
    """The error lists the strides it has."""
    with pytest.raises(ValueError, match=r"strides \[16, 16, 16\], expected \[4, 8, 16, 32\]"):
        Backbone("vit_tiny_patch16_224")


def make_swin() -> Backbone:
    torch.manual_seed(0)
    return Backbone("swin_tiny_patch4_window7_224", options={**SWIN, "embed_dim": 12, "drop_path_rate": 0.0})


@pytest.mark.parametrize("size", [(14, 21), (7, 7)])
def test_masks_of_shifted_windows_are_timms(size: tuple[int, int]) -> None:
    """For maps of whole windows."""
    block = next(m for m in make_swin().modules() if isinstance(m, PadFirstBlock) and any(m.shift_size))
    mask = shifted_mask(size, (7, 7), (3, 3), torch.device("cpu"), torch.float32)
    assert torch.equal(mask, block.get_attn_mask(torch.zeros(1, *size, 1)))


def test_swin_is_timms_where_nothing_is_padded() -> None:
    """Features and gradients, to the bit; 224 x 224 are whole windows at every stage."""
    ours, images = make_swin(), torch.randn(2, 3, 224, 224)
    theirs = make_swin()
    for module in theirs.modules():
        if isinstance(module, PadFirstBlock):
            module.__class__ = SwinTransformerBlock
    results = []
    for backbone in (ours, theirs):
        features = backbone(images)
        sum(feature.square().sum() for feature in features.values()).backward()
        results.append([*features.values(), *(parameter.grad for parameter in backbone.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_masks_that_are_kept_serve_training_too() -> None:
    """A mask made during inference, and sizes seen by a count of costs alone, do not disturb a later step."""
    shifted_mask.cache_clear()
    backbone = make_swin()
    with counting(backbone):
        trace(backbone, torch.empty(1, 3, 64, 96, device="meta"))
    assert shifted_mask.cache_info().currsize == 0
    with torch.inference_mode():
        backbone(torch.zeros(1, 3, 64, 96))
    assert shifted_mask.cache_info().currsize > 0
    sum(feature.sum() for feature in backbone(torch.zeros(1, 3, 64, 96)).values()).backward()
