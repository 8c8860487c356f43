"""Encoders of detectors against independent ones, those of `transformers`' DETR and Deformable DETR.

Both sides get the features of one small backbone, random weights, and images that do not fill their batch.
"""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.models.backbone import Backbone
from src.models.detection_neck import DetectionNeck
from src.models.detector import Detector
from src.models.encoder import Encoder
from src.models.encoder_layers import GlobalEncoderLayer
from src.models.position import SinePosition

transformers = pytest.importorskip("transformers")

DIM, LAYERS, WIDTHS = 64, 3, [64, 128, 256, 512]  # channels of a ResNet-18
BATCHES: dict[str, list[tuple[int, int]]] = {
    "one size": [(96, 128), (96, 128)],
    "another size": [(101, 150), (101, 150)],
    "two sizes": [(101, 96), (70, 150)],
    "one much smaller": [(128, 160), (33, 47)],
}


class Features(nn.Module):
    """The features of our backbone at some strides, as theirs gives them."""

    def __init__(self, backbone: Backbone, strides: list[int]):
        super().__init__()
        self.backbone, self.strides = backbone, strides

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.backbone(images)
        return [features[stride] for stride in self.strides]


class Reader(nn.Module):
    """A decoder whose only prediction is the levels."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.layers = nn.ModuleList()

    def forward(self, *memory: Any, **_: Any) -> list[Any]:
        return [memory[0]]


def make_theirs(kind: str) -> nn.Module:
    torch.manual_seed(0)
    backbone = transformers.ResNetConfig(
        hidden_sizes=WIDTHS,
        embedding_size=8,
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"] if kind == "detr" else ["stage2", "stage3", "stage4"],
    )
    common = {"backbone_config": backbone, "d_model": DIM, "encoder_layers": LAYERS, "decoder_layers": 1}
    common |= {"encoder_attention_heads": 8, "encoder_ffn_dim": 96, "decoder_attention_heads": 8, "decoder_ffn_dim": 96}
    if kind == "detr":
        model = transformers.DetrModel(transformers.DetrConfig(**common))
    else:
        model = transformers.DeformableDetrModel(transformers.DeformableDetrConfig(num_feature_levels=4, **common))
    with torch.no_grad():  # initial values hide what is multiplied by zero
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def make_ours(kind: str) -> Detector:
    torch.manual_seed(1)
    if kind == "detr":
        encoder = Encoder([LAYERS], DIM, dim_feedforward=96, num_levels=1, layer=GlobalEncoderLayer)
        neck = partial(DetectionNeck, strides=[32], norm=False)
    else:
        encoder = Encoder([0, 0, 0, LAYERS], DIM, dim_feedforward=96, num_levels=4)
        neck = partial(DetectionNeck, position=SinePosition(offset=-0.5))
    return Detector(Backbone("resnet18"), partial(neck, encoder=encoder, dim=DIM), Reader, num_classes=1).eval()


def renamed(theirs: nn.Module, kind: str) -> dict[str, Tensor]:
    """Their weights up to the encoder's end under our names; levels are counted from the coarsest."""
    state = theirs.state_dict()
    norms = {"self_attn_layer_norm": "norm1", "final_layer_norm": "norm2", "mlp.fc1": "linear1", "mlp.fc2": "linear2"}
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        if not key.startswith("encoder.") or ".q_proj" in key or ".k_proj" in key or ".v_proj" in key:
            continue
        for old, new in {**norms, "self_attn.o_proj": "self_attn.out_proj"}.items():
            key = key.replace(old, new)
        if "sampling_offsets" in key or "attention_weights" in key:  # (heads, levels, ...)
            value = value.unflatten(0, (8, 4, -1)).flip(1).flatten(0, 2)
        ours[key] = value
    if kind == "detr":
        for layer in range(LAYERS):
            for part in ("weight", "bias"):
                names = [f"encoder.layers.{layer}.self_attn.{one}_proj.{part}" for one in "qkv"]
                ours[f"encoder.layers.{layer}.self_attn.in_proj.{part}"] = torch.cat([state[name] for name in names])
        projection = {key: state[f"input_projection.{key}"] for key in ("weight", "bias")}
        return ours | {f"input_proj.0.0.{key}": value for key, value in projection.items()}
    for key, value in state.items():
        if key.startswith("input_proj."):
            _, level, rest = key.split(".", 2)
            ours[f"input_proj.{3 - int(level)}.{rest}"] = value
    return ours | {"level_embed": state["level_embed"].flip(0)}


@pytest.fixture(scope="module", params=["detr", "deformable"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Detector]:
    """Their model and ours, with the same weights and the same backbone."""
    kind = request.param
    theirs, ours = make_theirs(kind), make_ours(kind)
    ours.pixel_decoder.load_state_dict(renamed(theirs, kind))
    theirs.backbone.model = Features(ours.backbone, [32] if kind == "detr" else [8, 16, 32])
    return theirs, ours


@pytest.mark.parametrize("sizes", list(BATCHES.values()), ids=list(BATCHES))
@torch.no_grad()
def test_encoders_agree(pair: tuple[Any, Detector], sizes: list[tuple[int, int]]) -> None:
    """Every pixel inside of an image, of every level, within 1e-4."""
    theirs, ours = pair
    images = [torch.randn(3, *size, generator=torch.Generator().manual_seed(2)) for size in sizes]
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    batch, mask = torch.zeros(2, 3, height, width), torch.zeros(2, height, width, dtype=torch.long)
    for place, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
        batch[place, :, :h, :w], mask[place, :h, :w] = image, 1
    expected = theirs(pixel_values=batch, pixel_mask=mask).encoder_last_hidden_state  # (B, N, C), finest first
    ((levels,),) = ours(batch, sizes=sizes).values()
    parts = expected.split([level[0, 0].numel() for level in reversed(levels)], 1)
    projected = ours.pixel_decoder.project(ours.backbone(batch), ours.inside(batch, sizes))
    inside = projected.inside or [torch.ones_like(level[:, 0], dtype=torch.bool) for level in levels]
    for level, part, one in zip(levels, reversed(parts), inside, strict=True):
        found = level.flatten(2).transpose(1, 2)[one.flatten(1)]  # (pixels inside, C)
        torch.testing.assert_close(found, part[one.flatten(1)], atol=1e-4, rtol=0)
