"""Random weights under the names and shapes of published checkpoints, written out from their lists of keys."""

from collections.abc import Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from src.weights.layouts import State, from_ours, to_ours

Shapes = Iterator[tuple[str, tuple[int, ...]]]
PIXEL, HEAD = "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor."


def with_bias(name: str, *shape: int) -> Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def norm(name: str, dim: int) -> Shapes:
    yield from with_bias(name, dim)


def batch_norm(name: str, dim: int) -> Shapes:
    yield from norm(name, dim)
    yield f"{name}.running_mean", (dim,)
    yield f"{name}.running_var", (dim,)


def resnet(blocks: Sequence[int] = (3, 4, 6, 3)) -> Shapes:
    """detectron2's ResNet: a norm is part of its convolution."""
    yield "backbone.stem.conv1.weight", (64, 3, 7, 7)
    yield from batch_norm("backbone.stem.conv1.norm", 64)
    before = 64
    for stage, number in enumerate(blocks, 2):
        width = 64 * 2 ** (stage - 2)
        for block in range(number):
            place = f"backbone.res{stage}.{block}."
            for conv, shape in {
                **({"shortcut": (4 * width, before, 1, 1)} if block == 0 else {}),
                "conv1": (width, before, 1, 1),
                "conv2": (width, width, 3, 3),
                "conv3": (4 * width, width, 1, 1),
            }.items():
                yield f"{place}{conv}.weight", shape
                yield from batch_norm(f"{place}{conv}.norm", shape[0])
            before = 4 * width


def swin(dim: int = 96, blocks: Sequence[int] = (2, 2, 6, 2), heads: int = 3, window: int = 7) -> Shapes:
    """Mask2Former's Swin: a stage shrinks where it ends; each has a norm of its output."""
    yield from with_bias("backbone.patch_embed.proj", dim, 3, 4, 4)
    yield from norm("backbone.patch_embed.norm", dim)
    for stage, number in enumerate(blocks):
        width = dim * 2**stage
        for block in range(number):
            place = f"backbone.layers.{stage}.blocks.{block}."
            yield from norm(place + "norm1", width)
            yield f"{place}attn.relative_position_bias_table", ((2 * window - 1) ** 2, heads * 2**stage)
            yield f"{place}attn.relative_position_index", (window**2, window**2)
            yield from with_bias(place + "attn.qkv", 3 * width, width)
            yield from with_bias(place + "attn.proj", width, width)
            yield from norm(place + "norm2", width)
            yield from with_bias(place + "mlp.fc1", 4 * width, width)
            yield from with_bias(place + "mlp.fc2", width, 4 * width)
        if stage < 3:
            yield f"backbone.layers.{stage}.downsample.reduction.weight", (2 * width, 4 * width)
            yield from norm(f"backbone.layers.{stage}.downsample.norm", 4 * width)
        yield from norm(f"backbone.norm{stage}", width)


def head(
    channels: Sequence[int], schedule: Sequence[int], num_classes: int, num_queries: int = 100, light: bool = False
) -> Shapes:
    """Pixel decoder and predictor for backbone channels of strides 4, 8, 16, 32."""
    for i, dim in enumerate(reversed(channels[1:])):
        yield from with_bias(f"{PIXEL}input_proj.{i}.0", 256, dim, 1, 1)
        yield from norm(f"{PIXEL}input_proj.{i}.1", 256)
    yield f"{PIXEL}transformer.level_embed", (3, 256)
    alive = [levels for levels, layers in enumerate(schedule, 1) for _ in range(layers)]
    for i, levels in enumerate(alive):
        layer = f"{PIXEL}transformer.encoder.layers.{i}."
        yield from with_bias(layer + "self_attn.sampling_offsets", 64 * levels, 256)
        yield from with_bias(layer + "self_attn.attention_weights", 32 * levels, 256)
        yield from with_bias(layer + "self_attn.value_proj", 256, 256)
        yield from with_bias(layer + "self_attn.output_proj", 256, 256)
        yield from norm(layer + "norm1", 256)
        yield from with_bias(layer + "linear1", 1024, 256)
        yield from with_bias(layer + "linear2", 256, 1024)
        yield from norm(layer + "norm2", 256)
    yield from with_bias(PIXEL + "mask_features", 256, 256, 1, 1)
    yield f"{PIXEL}adapter_1.weight", (256, channels[0], 1, 1)
    yield from norm(PIXEL + "adapter_1.norm", 256)
    if not light:
        yield f"{PIXEL}layer_1.weight", (256, 256, 3, 3)
    yield from norm(PIXEL + "layer_1.norm", 256)
    for i in range(9):
        for kind, attention in (("self", "self_attn"), ("cross", "multihead_attn")):
            layer = f"{HEAD}transformer_{kind}_attention_layers.{i}."
            yield f"{layer}{attention}.in_proj_weight", (768, 256)
            yield f"{layer}{attention}.in_proj_bias", (768,)
            yield from with_bias(f"{layer}{attention}.out_proj", 256, 256)
            yield from norm(layer + "norm", 256)
        layer = f"{HEAD}transformer_ffn_layers.{i}."
        yield from with_bias(layer + "linear1", 2048, 256)
        yield from with_bias(layer + "linear2", 256, 2048)
        yield from norm(layer + "norm", 256)
    yield from norm(HEAD + "decoder_norm", 256)
    yield f"{HEAD}query_feat.weight", (num_queries, 256)
    yield f"{HEAD}query_embed.weight", (num_queries, 256)
    yield f"{HEAD}level_embed.weight", (3, 256)
    yield from with_bias(HEAD + "class_embed", num_classes + 1, 256)
    for i in range(3):
        yield from with_bias(f"{HEAD}mask_embed.layers.{i}", 256, 256)
    yield "criterion.empty_weight", (num_classes + 1,)


RESNET_CHANNELS, SWIN_CHANNELS = (256, 512, 1024, 2048), (96, 192, 384, 768)


def mask2former_resnet(depth: int, num_classes: int) -> Shapes:
    yield from resnet({50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth])
    yield from head(RESNET_CHANNELS, (0, 0, 6), num_classes)


def mask2former_resnet50() -> Shapes:
    yield from mask2former_resnet(50, 133)


def mask2former_swin_tiny() -> Shapes:
    yield from swin()
    yield from head(SWIN_CHANNELS, (0, 0, 6), 19)


def mask2former_swin_large() -> Shapes:
    yield from swin(192, (2, 2, 18, 2), 6, 12)
    yield from head((192, 384, 768, 1536), (0, 0, 6), 133, 200)


def proscale_resnet50(schedule: Sequence[int] = (3, 3, 3)) -> Shapes:
    yield from resnet()
    yield from head(RESNET_CHANNELS, schedule, 133, light=True)
    yield from with_bias(PIXEL + "transformer.encoder.token_excite.ops", 1, 256)


def proscale_swin_tiny() -> Shapes:
    yield from swin()
    yield from head(SWIN_CHANNELS, (3, 3, 3), 133, light=True)
    yield from with_bias(PIXEL + "transformer.encoder.token_excite.ops", 1, 256)


def eco_swin_tiny() -> Shapes:
    yield from mask2former_swin_tiny()
    yield from with_bias(PIXEL + "transformer.encoder.gt.head", 5, 256)


def weights(shapes: Shapes) -> dict[str, Tensor]:
    """Random tensors, small so that a model of them computes, each its own."""
    torch.manual_seed(0)
    return {name: 0.02 * torch.randn(shape) for name, shape in shapes}


def older(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of before version 2: no pixel_decoder, and static queries."""
    return {
        name.replace("pixel_decoder.", "").replace(".query_feat.", ".static_query."): value
        for name, value in state.items()
    }


@cache
def plain(layout: str) -> State:
    """Weights under the names of a layout, each full of a number of its own, which takes no room in a file."""
    shapes = (*swin(16, (1, 1, 1, 1)), *head((16, 32, 64, 128), (0, 0, 1), 3))
    state = {name: torch.zeros(1).expand(shape) for name, shape in shapes}
    if layout != "detectron2":
        state = to_ours(state, "detectron2")
    if layout == "transformers":
        state = from_ours(state, layout)
    return {name: torch.tensor(float(i)).expand(value.shape) for i, (name, value) in enumerate(state.items())}


def same(state: State, expected: State) -> bool:
    """Whether two states have equal names and tensors."""
    return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in expected)
