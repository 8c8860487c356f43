"""The architecture of a model, recognised by the names and shapes of its weights."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from src.weights.rows import State

PLACES_PER_LEVEL = 32  # heads x points, in every published model
SWINS: dict[tuple[int, tuple[int, ...], int], str] = {  # channels, blocks per stage, window
    (96, (2, 2, 6, 2), 7): "swin_tiny",
    (96, (2, 2, 18, 2), 7): "swin_small",
    (128, (2, 2, 18, 2), 12): "swin_base",
    (192, (2, 2, 18, 2), 12): "swin_large",
}
RESNETS: dict[tuple[int, ...], str] = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101"}  # bottlenecks per stage

NON_COMMERCIAL = "NEC Laboratories' licence: non-commercial evaluation and research only, no redistribution"
TERMS = {
    "Mask2Former": "CC BY-NC 4.0, Mask2Former's model zoo: no commercial use",
    "PRO-SCALE": NON_COMMERCIAL,
    "ECO-M2F": NON_COMMERCIAL,
}


class Architecture(NamedTuple):
    """What a model is built of."""

    backbone: str  # a choice of model/backbone; a description of any other
    dim: int
    num_classes: int
    num_queries: int
    schedule: list[int]
    exits: list[int] | None  # of its gate; None without a gate
    light: bool  # light pixel embedding
    recalibrated: bool  # token re-calibration
    legacy_layout: bool  # see `TokenRecalibration`
    encoder_feedforward: int
    decoder_layers: int
    decoder_feedforward: int

    @property
    def method(self) -> str:
        """The paper that describes it."""
        if self.exits is not None:
            return "ECO-M2F"
        plain = not self.light and not self.recalibrated and not any(self.schedule[:-1])
        return "Mask2Former" if plain else "PRO-SCALE"

    @property
    def known(self) -> bool:
        """Whether conf/model/backbone has its backbone."""
        return self.backbone in (*SWINS.values(), *RESNETS.values())

    def settings(self) -> dict[str, Any]:
        """Overrides that configure this model; a slash in a name marks a choice from a group."""
        settings = {
            "model/backbone": self.backbone,
            "model/pixel_embedding": "light" if self.light else "conv",
            "model/recalibration": "linear" if self.recalibrated else "none",
            "model/gate": "none" if self.exits is None else "linear",
            "schedule": self.schedule,
            "exits": self.exits,
            "dim": self.dim,
            "num_queries": self.num_queries,
            "model.pixel_decoder.encoder.dim_feedforward": self.encoder_feedforward,
            "model.decoder.num_layers": self.decoder_layers,
            "model.decoder.dim_feedforward": self.decoder_feedforward,
        }
        if self.recalibrated:
            settings["model.pixel_decoder.encoder.recalibrate.legacy_layout"] = self.legacy_layout
        return settings

    def __str__(self) -> str:
        """One line: method, backbone, schedule, classes and queries."""
        schedule = " ".join(map(str, self.schedule))
        numbers = f"{self.num_classes} classes, {self.num_queries} queries"
        return f"{self.method}, {self.backbone}, schedule {schedule}, {numbers}"


def recognise(state: State, layout: str) -> Architecture:
    """The architecture of weights under our names, which a file of some layout held.

    Raises ValueError or KeyError if they are no complete Mask2Former.
    """
    for name in NEEDED:
        if name not in state:
            raise ValueError(f"it lacks {name}")
    if "pixel_decoder.encoder.updated_levels" in state:
        raise ValueError("its encoder layers do not update all levels that they sample (Lite DETR style)")
    if (excite := state.get("pixel_decoder.encoder.recalibrate.excite.weight")) is not None and excite.dim() > 2:
        raise ValueError("token re-calibration is a convolution, which no release has: a linear layer was expected")
    places = [
        state[f"pixel_decoder.encoder.layers.{i}.self_attn.attention_weights.bias"].shape[0]
        for i in range(num_indices(state, r"pixel_decoder\.encoder\.layers\.(\d+)\.self_attn\.attention_weights\.bias"))
    ]
    per_level = PLACES_PER_LEVEL if set(places) <= {PLACES_PER_LEVEL * n for n in (1, 2, 3)} else max(places) / 3
    num_exits = len(state["gate.head.bias"]) if "gate.head.bias" in state else 0
    if num_exits > len(places):
        raise ValueError(f"its gate has {num_exits} exits and its encoder {len(places)} layers")
    architecture = Architecture(
        backbone=backbone_of(state),
        dim=state["pixel_decoder.level_embed"].shape[1],
        num_classes=state["decoder.class_embed.weight"].shape[0] - 1,
        num_queries=state["decoder.query_feat.weight"].shape[0],
        schedule=[places.count(int(per_level * alive)) for alive in (1, 2, 3)],
        exits=list(range(len(places) - num_exits + 1, len(places) + 1)) if num_exits else None,
        light="pixel_decoder.pixel_embedding.0.weight" not in state,
        recalibrated=excite is not None,
        legacy_layout=excite is not None and layout == "detectron2",
        encoder_feedforward=state["pixel_decoder.encoder.layers.0.linear1.bias"].shape[0],
        decoder_layers=num_indices(state, r"decoder\.layers\.(\d+)\.linear1\.bias"),
        decoder_feedforward=state["decoder.layers.0.linear1.bias"].shape[0],
    )
    for name, value in architecture._asdict().items():
        if type(value) is int and value < 1:
            raise ValueError(f"its shapes make {name} {value}")
    return architecture


NEEDED = (
    "pixel_decoder.level_embed",
    "pixel_decoder.encoder.layers.0.linear1.bias",
    "pixel_decoder.encoder.layers.0.self_attn.attention_weights.bias",
    "decoder.class_embed.weight",
    "decoder.query_feat.weight",
    "decoder.layers.0.linear1.bias",
)


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


# What names of other models match, and what these models are.
OTHERS = (
    (r"(roi_heads|rpn)\.|.*proposal_generator\.", "a box detector (R-CNN)"),
    (r".*(bbox_head|rpn_head|panoptic_head|mask_head)\.", "a model of mmdetection"),
    (r".*bbox_embed\.", "a detector of the DETR family"),
    (r"sem_seg_head\.predictor\.transformer\.|model\.pixel_level_module\.decoder\.fpn", "MaskFormer"),
    (r".*(task_mlp|text_encoder|text_projector)\.", "OneFormer or another model with text"),
    (r"(image_encoder|mask_decoder)\.", "SAM"),
    (
        r"(model\.)?(head|fc|classifier)\.",
        "an image classifier; model.backbone.pretrained=FILE takes it as a backbone",
    ),
    (
        r"(backbone\.)?(stem|res\d|conv1|layer1|patch_embed|layers)[._\d]",
        "a backbone alone; model.backbone.pretrained=FILE takes it",
    ),
)


def other(names: Iterable[str]) -> str:
    """What kind of model weights other than Mask2Former's belong to: a guess, for an error message."""
    names = list(names)
    parts = [name.split(".") for name in names]
    ends = zip(min(parts), max(parts), strict=False)
    shared = next((depth for depth, (one, another) in enumerate(ends) if one != another), 0)  # of a wrapper
    bare = [".".join(part[shared:]) for part in parts]
    kinds = (kind for pattern, kind in OTHERS if any(re.match(pattern, name) for name in (*names, *bare)))
    return f"looks like {next(kinds, 'another model')} ({len(names)} tensors: {', '.join(names[:5])} ...)"
