"""Encoders of a fixed structure: a feature pyramid, and one in the style of RT-DETR."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from src.models.encoder import TokenRecalibration
from src.models.feature_pyramid import FeaturePyramid
from src.models.hybrid_layer import HybridLayer
from src.models.pixel_decoder import ConvPixelEmbedding, DepthwisePixelEmbedding, PixelDecoder
from src.models.pixel_encoder import FixedEncoder

DIM, SIZES = 32, [(2, 3), (4, 6), (8, 12)]
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "fpn": lambda: FeaturePyramid(DIM),
    "hybrid": lambda: HybridLayer(DIM, num_heads=4, dim_feedforward=64, num_convs=2),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def make_encoder(name: str) -> FixedEncoder:
    torch.manual_seed(0)
    return FixedEncoder(LAYERS[name]())


def make_levels(batch: int = 1) -> tuple[list[Tensor], list[Tensor]]:
    torch.manual_seed(1)
    return [torch.randn(batch, DIM, *size) for size in SIZES], [torch.randn(DIM, *size) for size in SIZES]


@every_layer
@torch.no_grad()
def test_two_images_are_each_alone(name: str) -> None:
    """Levels keep their shapes, and an image does not notice who else is in its batch, in training either."""
    encoder, (levels, pos) = make_encoder(name), make_levels(2)
    (both,) = encoder(levels, pos).values()
    assert [level.shape for level in both] == [level.shape for level in levels]
    for image in range(2):
        (alone,) = encoder([level[image : image + 1] for level in levels], pos).values()
        for ours, expected in zip(both, alone, strict=True):
            torch.testing.assert_close(ours[image : image + 1], expected, atol=1e-5, rtol=1e-5)


@every_layer
@torch.no_grad()
def test_the_end_is_the_only_exit(name: str) -> None:
    """Images leave there, whatever chooses; other depths are refused."""
    encoder, (levels, pos) = make_encoder(name), make_levels(2)
    assert list(encoder(levels, pos)) == [1]
    left = encoder.leave(levels, pos, [1, 1])
    assert all(torch.equal(a, b) for a, b in zip(left, encoder(levels, pos, [1])[1], strict=True))
    behind = encoder.leave(left, pos, [1, 1], start=1)
    assert all(torch.equal(a, b) for a, b in zip(behind, left, strict=True))
    with pytest.raises(ValueError, match=r"exits=\[1, 2\]: the encoder has 1 layers"):
        encoder.leave(levels, pos, [1, 2])


@every_layer
@torch.no_grad()
def test_the_coarsest_level_is_seen_everywhere(name: str) -> None:
    """A change at one place of it changes finer levels; of positions, only what reads them notices."""
    encoder, (levels, pos) = make_encoder(name), make_levels()
    (before,) = encoder(levels, pos).values()
    changed = levels[0].clone()
    changed[..., 0, 0] += 1
    (after,) = encoder([changed, *levels[1:]], pos).values()
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    (moved,) = encoder(levels, [p + 1 for p in pos]).values()
    assert torch.equal(moved[-1], before[-1]) is not encoder.reads_positions


@torch.no_grad()
def test_a_pyramid_is_smoothed_sums() -> None:
    """By hand: each output repeats its pixels, is added to the next level, convolved, normed and cut at 0."""
    encoder, (levels, pos) = make_encoder("fpn"), make_levels()
    (outputs,) = encoder(levels, pos).values()
    above = 0.0
    for level, output, smooth in zip(levels, outputs, encoder.layers[0].smooth, strict=True):
        expected = smooth[1](nn.functional.conv2d(level + above, smooth[0].weight, padding=1)).clamp(min=0)
        torch.testing.assert_close(output, expected)
        above = output.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_settings_of_deformable_encoders_are_ignored_but_recalibration() -> None:
    """An experiment has them for its own encoder; re-calibration would be a part that is missing."""
    FixedEncoder(FeaturePyramid(DIM), None, [0, 0, 6], DIM, 4, 2, 64, "grid")
    with pytest.raises(ValueError, match="model/recalibration: FeaturePyramid has no schedule"):
        FixedEncoder(FeaturePyramid(DIM), TokenRecalibration(DIM))


@every_layer
@pytest.mark.parametrize("pixel_embedding", [ConvPixelEmbedding, DepthwisePixelEmbedding])
@pytest.mark.parametrize("num_read", [1, 3])
def test_every_weight_learns(name: str, pixel_embedding: Callable[[int], nn.Module], num_read: int) -> None:
    """Even if the decoder reads the coarsest level alone: DDP waits for a gradient of every parameter."""
    channels = {4: 4, 8: 8, 16: 16, 32: 32}
    decoder = PixelDecoder(channels, make_encoder(name), pixel_embedding, DIM)
    features = {stride: torch.randn(2, width, 64 // stride, 96 // stride) for stride, width in channels.items()}
    ((mask_features, levels),) = decoder(features).values()
    assert mask_features.shape == (2, DIM, 16, 24)
    (mask_features.square().sum() + sum(level.square().sum() for level in levels[:num_read])).backward()
    learning = {key: parameter for key, parameter in decoder.named_parameters() if parameter.requires_grad}
    assert [key for key, parameter in learning.items() if parameter.grad is None or not parameter.grad.any()] == []
    assert ("level_embed" in learning) == (name == "hybrid")
