"""What a forward pass is said to cost."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from src.config.build import sketch
from src.config.command_line import configure
from src.metrics.cost import Cost, count, mean, survey
from src.models.backbone import Backbone
from src.models.encoder import Encoder, TokenRecalibration
from src.models.feature_pyramid import FeaturePyramid
from src.models.gate import INPUTS, Gate
from src.models.hybrid_layer import HybridLayer
from src.models.mask2former import Mask2Former
from src.models.pixel_decoder import (
    ConvPixelEmbedding,
    DepthwisePixelEmbedding,
    LightPixelEmbedding,
    PixelDecoder,
)
from src.models.pixel_encoder import FixedEncoder, PixelEncoder
from src.models.schedule import expand_schedule, interleaved
from src.models.transformer_decoder import TransformerDecoder

HEIGHT, WIDTH = 64, 96
TOKENS = [HEIGHT * WIDTH // stride**2 for stride in (32, 16, 8)]
SWIN = {"strict_img_size": False, "always_partition": True}
BACKBONES: dict[str, Callable[[], Backbone]] = {
    "Swin-T": lambda: Backbone("swin_tiny_patch4_window7_224", output_norm=True, options=SWIN),
    "R50": lambda: Backbone("resnet50"),
    "R50, frozen": lambda: Backbone("resnet50", freeze_norm=True),
}


def make_model(schedule: list[int], light: bool = True, num_classes: int = 3) -> Mask2Former:
    """Published widths after a small backbone."""
    encoder = Encoder(schedule, recalibrate=TokenRecalibration(256))
    return model_with(encoder, LightPixelEmbedding if light else ConvPixelEmbedding, num_classes)


def model_with(encoder: PixelEncoder, pixel_embedding: Callable[[int], nn.Module], num_classes: int = 3) -> Mask2Former:
    """Published widths after a small backbone."""
    return Mask2Former(
        Backbone("resnet10t"),
        partial(PixelDecoder, encoder=encoder, pixel_embedding=pixel_embedding),
        partial(TransformerDecoder, num_queries=5, num_layers=2),
        num_classes=num_classes,
    )


def make_published(backbone: str, schedule: list[int], num_classes: int, light: bool) -> Mask2Former:
    """A model of the papers, without memory for its weights."""
    with torch.device("meta"):
        return Mask2Former(
            BACKBONES[backbone](),
            partial(
                PixelDecoder,
                encoder=Encoder(schedule, recalibrate=TokenRecalibration(256) if light else None),
                pixel_embedding=LightPixelEmbedding if light else ConvPixelEmbedding,
            ),
            TransformerDecoder,
            num_classes,
        )


@pytest.mark.slow
def test_an_encoder_layer_costs_what_its_formula_says() -> None:
    """N (2 d^2 + 96 L d + 2 d 1024) + 10 d N multiply-adds for N tokens of L levels, d = 256."""
    schedule = [1, 1, 1]
    (cost,) = count(make_model(schedule), (HEIGHT, WIDTH)).values()
    for layer, alive in zip(cost.layers, expand_schedule(schedule), strict=True):
        tokens, dim = sum(TOKENS[:alive]), 256
        expected = tokens * (2 * dim**2 + 96 * alive * dim + 2 * dim * 1024) + 10 * dim * tokens
        assert 1e9 * layer == pytest.approx(expected, abs=0.5)


def test_a_layer_of_lite_costs_its_own_tokens_and_the_values_of_all() -> None:
    """n tokens are updated, N are values: N d^2 + n (d^2 + 96 L d + 2 d 1024 + 10 d), with L = 3 levels."""
    (cost,) = count(model_with(Encoder([0, 0, 2], expand=interleaved), ConvPixelEmbedding), (HEIGHT, WIDTH)).values()
    dim, values = 256, sum(TOKENS)
    for layer, tokens in zip(cost.layers, (sum(TOKENS[:2]), sum(TOKENS[:2]), TOKENS[2]), strict=True):
        expected = values * dim**2 + tokens * (dim**2 + 96 * 3 * dim + 2 * dim * 1024 + 10 * dim)
        assert 1e9 * layer == pytest.approx(expected, abs=0.5)
    assert 1e9 * cost.sampling == pytest.approx(4 * dim * 4 * 3 * (2 * sum(TOKENS[:2]) + TOKENS[2]))


def test_a_feature_pyramid_costs_a_convolution_per_level() -> None:
    """9 d^2 + 5 d per token, as the one layer of the encoder."""
    (cost,) = count(model_with(FixedEncoder(FeaturePyramid(256)), DepthwisePixelEmbedding), (HEIGHT, WIDTH)).values()
    assert [round(1e9 * layer) for layer in cost.layers] == [sum(TOKENS) * (9 * 256**2 + 5 * 256)]
    stride4 = HEIGHT * WIDTH // 16
    assert round(1e9 * cost.stride4_path) == stride4 * (256 * 64 + 5 * 256 + 9 * 256 + 5 * 256)
    assert (cost.recalibration, cost.sampling) == (0, 0)


def test_a_hybrid_layer_costs_what_its_formula_says() -> None:
    """Attention 4 N d^2 + 2 N^2 d + 2048 N d + 10 N d, and 1x1 and 3x3 convolutions with 5 d per token for norms."""
    dim, (coarse, middle, fine) = 256, TOKENS
    (cost,) = count(model_with(FixedEncoder(HybridLayer(dim)), ConvPixelEmbedding), (HEIGHT, WIDTH)).values()
    attention = coarse * (4 * dim**2 + 2 * coarse * dim + 2048 * dim + 10 * dim)
    one, three = dim**2 + 5 * dim, 9 * dim**2 + 5 * dim
    fusion = 2 * (2 * dim**2 + 5 * dim) + 3 * three
    expected = (
        attention
        + (coarse + middle) * one  # lateral
        + (middle + fine) * fusion  # from coarse to fine
        + (coarse + middle) * (three + fusion)  # and back
    )
    assert [round(1e9 * layer) for layer in cost.layers] == [expected]
    assert (cost.recalibration, cost.sampling) == (0, 0)


def test_other_parts_cost_what_their_formulas_say() -> None:
    """Re-calibration, sampling, stride 4, post-processing and the query-key product, each counted by hand."""
    (cost,) = count(make_model([1, 1, 1]), (HEIGHT, WIDTH)).values()
    dim, stride4 = 256, HEIGHT * WIDTH // 16
    by_hand = {
        "recalibration": (dim + 4 * dim) * sum(TOKENS[:2]),
        "sampling": sum(4 * dim * 4 * alive * sum(TOKENS[:alive]) for alive in (1, 2, 3)),
        "stride4_path": stride4 * (dim * 64 + 5 * dim + 5 * dim),  # resnet10t has 64 channels there
        "mask_convolution": stride4 * dim**2,
        "upsampling": 4 * dim * stride4,
        "query_key_product": 5 * dim * sum(TOKENS[:2]),  # two layers, at strides 32 and 16
        "postprocessing": 5 * HEIGHT * WIDTH * (4 + 4 + 3),
        "gate": 0,
    }
    assert {name: round(1e9 * value) for name, value in cost.parts().items() if name in by_hand} == by_hand


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "schedule", "num_classes", "light", "size", "expected"),
    [
        ("Swin-T", [0, 0, 6], 19, False, (1024, 2048), (537.848, 195.555, 281.130, 188.800, 55.367)),
        ("R50", [0, 0, 6], 19, False, (1024, 2048), (524.114, 171.755, 291.196, 188.800, 55.367)),
        ("Swin-T", [0, 0, 2], 19, False, (1024, 2048), (411.981, 195.555, 155.263, 62.933, 55.367)),
        ("Swin-T", [3, 3, 3], 19, True, (1024, 2048), (392.066, 195.555, 135.348, 120.328, 55.367)),
        ("R50, frozen", [0, 0, 6], 133, False, (800, 1344), (281.726, 88.058, 149.295, 96.797, 29.144)),
        ("Swin-T", [3, 3, 3], 133, True, (800, 1344), (213.314, 99.549, 69.392, 61.692, 29.144)),
    ],
)
def test_published_costs(
    backbone: str, schedule: list[int], num_classes: int, light: bool, size: tuple[int, int], expected: tuple
) -> None:
    """Total and parts of the papers' models are those that the authors' code has under their counter, within 0.01 %."""
    (cost,) = count(make_published(backbone, schedule, num_classes, light), size).values()
    parts = (cost.total, cost.backbone, cost.pixel_decoder, cost.encoder_layers, cost.decoder)
    assert parts == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resized", "original", "expected"),
    [((800, 800), (640, 640), 170.84), ((800, 1067), (480, 640), 226.48), ((800, 1333), (384, 640), 276.69)],
)
def test_real_images_are_padded_and_answered_at_their_own_size(
    resized: tuple[int, int], original: tuple[int, int], expected: float
) -> None:
    """Mask2Former, Swin-T, on COCO images of several sizes costs what the authors' code has under their counter."""
    costs = survey(make_published("Swin-T", [0, 0, 6], 133, False), [(resized, original)])
    assert costs[6].total == pytest.approx(expected, abs=5e-3)


@pytest.mark.slow
def test_a_survey_is_the_mean_of_its_images() -> None:
    """Images that share a padded size are counted once, and weigh as many as they are."""
    model = make_model([1, 1, 1])
    views = [((60, 90), (30, 40)), ((64, 96), (50, 60)), ((32, 64), (10, 20))]
    singly = [survey(model, [view])[3] for view in views]
    together = survey(model, views)[3]
    assert together.total == pytest.approx(sum(cost.total for cost in singly) / 3)
    assert together.layers == pytest.approx([sum(cost.layers[i] for cost in singly) / 3 for i in range(3)])
    assert mean([(singly[0], 2)]) == singly[0]


def test_the_total_is_the_sum_of_its_parts() -> None:
    """Backbone, pixel decoder, upsampling, decoder, gate and post-processing; sampling and comparing stand apart."""
    cost = Cost(1, 2, (4, 8), 16, 32, 64, 128, 256, 512, 1024, 1 << 20, 1 << 21)
    assert cost.encoder_layers == 4 + 8 + 16
    assert cost.pixel_decoder == 2 + 28 + 32 + 64
    assert cost.total == 2047


@pytest.mark.slow
def test_cost_grows_with_depth_and_with_schedule() -> None:
    """One more layer costs more wherever it is, and a layer with more levels alive costs more than one with fewer."""
    schedules = [[1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 1], [1, 2, 1], [1, 1, 2], [0, 0, 4]]
    costs = [count(make_model(schedule), (HEIGHT, WIDTH))[sum(schedule)].total for schedule in schedules]
    assert costs == sorted(set(costs))


def test_an_exit_costs_less_than_a_deeper_one() -> None:
    """The parts that all exits share cost the same at each, the encoder more at deeper ones."""
    costs = count(make_model([2, 1, 1]), (HEIGHT, WIDTH), [1, 2, 3, 4])
    for earlier, later in zip(list(costs.values())[:-1], list(costs.values())[1:], strict=True):
        assert earlier.encoder_layers < later.encoder_layers
        assert earlier.total < later.total
        assert earlier.layers == later.layers[:-1]
        assert (earlier.decoder, earlier.backbone) == (later.decoder, later.backbone)
    assert costs[2].recalibration < costs[3].recalibration  # only what came alive was weighed


def test_a_gate_costs_next_to_nothing() -> None:
    """One product per channel and exit; the papers' five exits: 1280 multiply-adds."""
    model = make_model([0, 0, 6])
    model.gate = Gate(256, exits=[2, 3, 4, 5, 6])
    (cost,) = count(model, (HEIGHT, WIDTH)).values()
    assert round(1e9 * cost.gate) == 1280


@pytest.mark.parametrize("light", [True, False])
def test_first_masks_are_paid_for(light: bool) -> None:
    """Fusing and masks at stride 16, and the kernels of the queries; the layers up to the first exit cost no more."""
    model, dim, queries = make_model([0, 0, 2], light), 256, 5
    model.gate = Gate(2 * queries, exits=[1, 2], inputs=["first_masks"])
    pixels = HEIGHT * WIDTH // 16**2
    embedding = 5 * dim if light else 9 * dim**2 + 5 * dim
    fused = pixels * (4 * dim + embedding + dim**2)
    kernels = queries * (5 * dim + 3 * dim**2)
    expected = fused + kernels + queries * dim * pixels + 2 * queries * 2
    costs = count(model, (HEIGHT, WIDTH), [1, 2])
    assert [round(1e9 * cost.gate) for cost in costs.values()] == [expected] * 2
    model.gate = Gate(dim, exits=[1, 2], inputs=["change8"])
    cheap = count(model, (HEIGHT, WIDTH), [1, 2])
    assert [round(1e9 * cost.gate) for cost in cheap.values()] == [2 * dim] * 2
    for exit_ in (1, 2):
        assert cheap[exit_]._replace(gate=0) == costs[exit_]._replace(gate=0)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["eco_parent_coco", "eco_parent_shapes", "eco_proscale_shapes"])
def test_a_gate_takes_less_than_a_thousandth(experiment: str) -> None:
    """Of the multiply-adds of the shallowest exit, with every statistic of levels and a layer in between."""
    inputs = ",".join(name for name in INPUTS if name != "first_masks" and not name.endswith("64"))
    overrides = [f"+experiment={experiment}", "model/gate=linear", f"+model.gate.inputs=[{inputs}]"]
    cfg = configure([*overrides, "+model.gate.hidden=32", "paths.run=."])
    costs = count(sketch(cfg).model, cfg.image_size)
    shallowest = next(iter(costs.values()))
    assert 0 < shallowest.gate < 0.001 * shallowest.total


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ("panoptic", 5 * (4 * 6144 + 4 * 800 + 3 * 800)),
        ("instance", 5 * (4 * 6144 + 4 * 800)),
        ("semantic", 5 * (4 * 6144 + 3 * 6144) + 4 * 3 * 800),
    ],
)
def test_post_processing_depends_on_what_is_asked_for(segmentation: str, expected: int) -> None:
    """Five masks are resized to 64 x 96 and on to 800 pixels; three classes are summed where there is a class map."""
    (cost,) = count(make_model([0, 0, 1]), (HEIGHT, WIDTH), pixels=800, segmentation=segmentation).values()
    assert round(1e9 * cost.postprocessing) == expected


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
