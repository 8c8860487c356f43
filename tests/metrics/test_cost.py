"""What a forward pass is said to cost."""

from functools import partial

import pytest
import torch

from src.metrics.cost import count
from src.models.backbone import Backbone
from src.models.encoder import Encoder, TokenRecalibration, expand_schedule
from src.models.mask2former import Mask2Former
from src.models.pixel_decoder import ConvPixelEmbedding, LightPixelEmbedding, PixelDecoder
from src.models.transformer_decoder import TransformerDecoder

HEIGHT, WIDTH = 64, 96
TOKENS = [HEIGHT * WIDTH // stride**2 for stride in (32, 16, 8)]
SWIN = {"strict_img_size": False, "always_partition": True}


def make_model(schedule: list[int], backbone: Backbone | None = None, light: bool = True) -> Mask2Former:
    """Published widths after a small backbone, if no other is given."""
    return Mask2Former(
        backbone or Backbone("resnet10t"),
        partial(
            PixelDecoder,
            encoder=Encoder(schedule, recalibrate=TokenRecalibration(256)),
            pixel_embedding=LightPixelEmbedding if light else ConvPixelEmbedding,
        ),
        partial(TransformerDecoder, num_queries=5, num_layers=2),
        num_classes=3,
    )


@pytest.mark.parametrize("schedule", [[0, 0, 1], [1, 1, 1]])
def test_an_encoder_layer_costs_what_its_formula_says(schedule: list[int]) -> None:
    """N (2 d^2 + 96 L d + 2 d 1024) + 10 d N multiply-adds for N tokens of L levels, d = 256."""
    costs = count(make_model(schedule), (HEIGHT, WIDTH))
    for layer, alive in enumerate(expand_schedule(schedule)):
        tokens, dim = sum(TOKENS[:alive]), 256
        expected = tokens * (2 * dim**2 + 96 * alive * dim + 2 * dim * 1024) + 10 * dim * tokens
        assert 1e9 * costs[f"pixel_decoder.encoder.layers.{layer}"] == expected


@pytest.mark.parametrize(
    ("schedule", "light", "expected"),
    [([1, 1, 1], True, 55.138), ([1, 1, 1], False, 132.448), ([3, 3, 3], True, 135.348), ([3, 1, 1], True, 57.934)],
)
def test_published_costs(schedule: list[int], light: bool, expected: float) -> None:
    """The pixel decoder after Swin-T at 1024 x 2048 costs what PRO-SCALE says, and the resize to stride 4 besides.

    (The authors' counter books that resize to the model, not to the pixel decoder.)
    """
    model = make_model(schedule, Backbone("swin_tiny_patch4_window7_224", output_norm=True, options=SWIN), light)
    resize = 4 * 256 * 256 * 512 / 1e9
    assert count(model, (1024, 2048))["pixel_decoder"] == pytest.approx(expected + resize, abs=5e-4)


def test_cost_grows_with_depth_and_with_schedule() -> None:
    """One more layer costs more wherever it is, and a layer with more levels alive costs more than one with fewer."""
    schedules = [[1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 1], [1, 2, 1], [1, 1, 2], [0, 0, 4]]
    costs = [count(make_model(schedule), (HEIGHT, WIDTH))["total"] for schedule in schedules]
    assert costs == sorted(set(costs))


def test_an_exit_costs_less_than_a_deeper_one() -> None:
    """The parts that all exits share cost the same at each, the encoder more at deeper ones."""
    model = make_model([2, 1, 1])
    first, *others = [count(model, (HEIGHT, WIDTH), [depth]) for depth in (1, 2, 3, 4)]
    for earlier, later in zip([first, *others], others, strict=False):
        assert earlier["pixel_decoder.encoder"] < later["pixel_decoder.encoder"]
        assert earlier["total"] < later["total"]
        assert earlier["decoder"] == later["decoder"]
        assert earlier["backbone"] == later["backbone"]


def test_counting_leaves_the_model_as_it_was() -> None:
    """Weights, running statistics and modes are untouched, and the model still computes."""
    model = make_model([1, 1, 1]).train()
    model.decoder.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count(model, (HEIGHT, WIDTH))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert model.backbone.training
    assert not model.decoder.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    (predictions,) = model(torch.zeros(1, 3, HEIGHT, WIDTH)).values()
    assert type(predictions[-1].mask_logits) is torch.Tensor
