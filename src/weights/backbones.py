"""Backbones, recognised by the names and shapes of their weights."""

import re
from collections.abc import Iterable

from src.weights.rows import State

SWINS: dict[tuple[int, tuple[int, ...], int], str] = {  # channels, blocks per stage, window
    (96, (2, 2, 6, 2), 7): "swin_tiny",
    (96, (2, 2, 18, 2), 7): "swin_small",
    (128, (2, 2, 18, 2), 12): "swin_base",
    (192, (2, 2, 18, 2), 12): "swin_large",
}
RESNETS: dict[tuple[int, ...], str] = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101"}  # bottlenecks per stage
KNOWN = (*SWINS.values(), *RESNETS.values())  # choices of model/backbone


def backbone_of(state: State) -> str:
    """The choice of model/backbone; a description of any other backbone."""
    if "backbone.body.patch_embed.proj.weight" in state:
        width, blocks, window = swin_shape(state)
        unknown = f"a Swin of {width} channels, {' '.join(map(str, blocks))} blocks and window {window}"
        return SWINS.get((width, blocks, window), unknown)
    blocks = resnet_blocks(state)
    return RESNETS.get(blocks, f"a ResNet of {' '.join(map(str, blocks))} bottlenecks" if any(blocks) else "unknown")


def swin_shape(state: State) -> tuple[int, tuple[int, ...], int]:
    """Channels, blocks per stage and window of a Swin."""
    width = state["backbone.body.patch_embed.proj.weight"].shape[0]
    blocks = tuple(num_indices(state, rf"backbone\.body\.layers_{i}\.blocks\.(\d+)\.norm1\.bias") for i in range(4))
    places = state["backbone.body.layers_0.blocks.0.attn.relative_position_bias_table"].shape[0]
    return width, blocks, (int(places**0.5) + 1) // 2


def resnet_blocks(state: State) -> tuple[int, ...]:
    """Bottlenecks per stage of a ResNet."""
    return tuple(num_indices(state, rf"backbone\.body\.layer{i}\.(\d+)\.conv3\.weight") for i in (1, 2, 3, 4))


def num_indices(names: Iterable[str], pattern: str) -> int:
    """How many different values the group of a pattern has among names."""
    return len({found[1] for name in names if (found := re.fullmatch(pattern, name))})
