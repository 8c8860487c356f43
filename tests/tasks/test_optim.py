"""Parameter groups and schedules."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from src.models.backbone import Backbone
from src.models.encoder import Encoder, TokenRecalibration
from src.models.mask2former import Mask2Former
from src.models.pixel_decoder import LightPixelEmbedding, PixelDecoder
from src.models.transformer_decoder import TransformerDecoder
from src.tasks.optim import adamw

Rates = dict[str, tuple[float, float]]
BLOCK = "backbone.body.layers_0.blocks.1"


@pytest.fixture(scope="module")
def model() -> Mask2Former:
    """Swin-T and everything after it, small; one parameter is frozen."""
    encoder = Encoder([1, 1, 1], 32, dim_feedforward=16, recalibrate=TokenRecalibration(32))
    model = Mask2Former(
        Backbone("swin_tiny_patch4_window7_224", output_norm=True),
        partial(PixelDecoder, encoder=encoder, pixel_embedding=LightPixelEmbedding, dim=32),
        partial(TransformerDecoder, dim=32, num_queries=5, num_layers=2, dim_feedforward=16),
        num_classes=3,
    )
    model.decoder.class_embed.bias.requires_grad_(False)
    return model


@pytest.fixture(scope="module")
def rates(model: Mask2Former) -> Rates:
    """Learning rate and weight decay of each parameter by name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = adamw(model, lr=2.0, weight_decay=0.05, backbone_lr_multiplier=0.1).param_groups
    return {names[p]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


@pytest.mark.parametrize(
    ("name", "lr", "decay"),
    [
        ("decoder.query_feat.weight", 2.0, 0.0),
        ("decoder.query_embed.weight", 2.0, 0.0),
        ("decoder.level_embed.weight", 2.0, 0.0),
        ("decoder.norm.bias", 2.0, 0.0),
        ("pixel_decoder.lateral.1.weight", 2.0, 0.0),  # group norm
        ("pixel_decoder.encoder.layers.0.norm1.weight", 2.0, 0.0),
        ("pixel_decoder.level_embed", 2.0, 0.05),
        ("pixel_decoder.encoder.recalibrate.excite.bias", 2.0, 0.05),
        ("pixel_decoder.mask_features.bias", 2.0, 0.05),
        ("decoder.layers.0.linear1.bias", 2.0, 0.05),
        ("decoder.class_embed.weight", 2.0, 0.05),
        (f"{BLOCK}.attn.relative_position_bias_table", 0.2, 0.0),
        (f"{BLOCK}.norm1.weight", 0.2, 0.0),
        ("backbone.norms.3.bias", 0.2, 0.0),
        (f"{BLOCK}.attn.qkv.weight", 0.2, 0.05),
        (f"{BLOCK}.attn.qkv.bias", 0.2, 0.05),
    ],
)
def test_parameter_groups(rates: Rates, name: str, lr: float, decay: float) -> None:
    """Norms, embeddings and Swin's position tables are not decayed, all else is; the backbone learns at a tenth."""
    assert rates[name] == pytest.approx((lr, decay))


def test_recipes_of_detectors_decay_all_and_slow_some(model: Mask2Former) -> None:
    """Norms and embeddings are decayed like all else; rates of parts of the model multiply."""
    multipliers = {"sampling_offsets": 0.1, "norm": 0.5}
    groups = adamw(model, 2.0, 0.05, 0.1, lr_multipliers=multipliers, decay_all=True).param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    rates = {names[p]: group["lr"] for group in groups for p in group["params"]}
    assert {group["weight_decay"] for group in groups} == {0.05}
    assert rates["decoder.query_feat.weight"] == 2.0
    assert rates["pixel_decoder.encoder.layers.0.self_attn.sampling_offsets.weight"] == pytest.approx(0.2)
    assert rates["backbone.norms.3.bias"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("variant", "slow", "fast"),
    [
        ("mask2former", ["self_attn.value_proj", "linear1", "norm2"], []),
        ("proscale", ["self_attn.value_proj", "recalibrate.excite"], []),
        ("lite", ["self_attn.value_proj"], []),
        ("hybrid", ["attend.linear1"], ["top_down.0.short", "lateral.0", "bottom_up.1"]),
        ("fpn", [], ["smooth.0", "smooth.2"]),
    ],
)
def test_the_encoders_rate_is_that_of_its_attention(
    variant: str, slow: list[str], fast: list[str], configure: Callable[..., DictConfig]
) -> None:
    """Convolutions across levels keep the rate of other new layers, and so does everything outside the encoder."""
    cfg = configure("+experiment=mask2former_animals", f"variant={variant}", "lr=2", "model.backbone.pretrained=false")
    model = instantiate(cfg.model, _convert_="all")(num_classes=4)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = instantiate(cfg.task.optimizer)(model).param_groups
    rates = {names[p]: round(group["lr"], 6) for group in groups for p in group["params"]}
    inside = {name: rate for name, rate in rates.items() if "pixel_decoder.encoder." in name}
    for parts, rate in ((slow, 0.2), (fast, 2.0)):
        for part in parts:
            assert {one for name, one in inside.items() if part in name} == {rate}, part
    assert slow or set(inside.values()) == {2.0}
    assert fast or set(inside.values()) == {0.2}
    assert {rate for name, rate in rates.items() if "backbone." not in name and name not in inside} == {2.0}


def test_every_trainable_parameter_is_in_one_group(model: Mask2Former, rates: Rates) -> None:
    """None is missing, none is twice, none is frozen."""
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    grouped = [p for group in adamw(model, 1.0, 0.05).param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(trainable) < len(list(model.parameters()))
    assert set(rates) == trainable


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["task/scheduler=multistep", "task.scheduler.milestones=[4,8]"], {0: 1, 3: 1, 4: 0.1, 7: 0.1, 8: 0.01}),
        (["trainer.max_steps=10"], {0: 1, 1: 0.9**0.9, 5: 0.5**0.9, 9: 0.1**0.9, 10: 0}),
    ],
    ids=["multistep", "polynomial"],
)
def test_schedules(overrides: list[str], expected: dict[int, float], configure: Callable[..., DictConfig]) -> None:
    """The learning rates after so many steps, those of all groups in proportion."""
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.AdamW(groups)
    scheduler = instantiate(configure(*overrides).task.scheduler)(optimizer)
    for step in range(max(expected) + 1):
        if step in expected:
            assert scheduler.get_last_lr() == pytest.approx([expected[step], 0.1 * expected[step]])
        optimizer.step()
        scheduler.step()
