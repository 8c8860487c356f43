"""The architecture of a Mask2Former, recognised by the names and shapes of its weights, or of any model of ours."""

from typing import Any, NamedTuple

from src.weights.backbones import KNOWN, backbone_of, num_indices
from src.weights.detector_architecture import DetectorArchitecture, is_detector, recognise_detector
from src.weights.encoders import check_positive, exits_of, gate_settings, schedule_of
from src.weights.rows import State

NON_COMMERCIAL = "NEC Laboratories' licence: non-commercial evaluation and research only, no redistribution"
TERMS = {
    "Mask2Former": "CC BY-NC 4.0, Mask2Former's model zoo: no commercial use",
    "PRO-SCALE": NON_COMMERCIAL,
    "ECO-M2F": NON_COMMERCIAL,
}


class Architecture(NamedTuple):
    """What a Mask2Former is built of."""

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
        return self.backbone in KNOWN

    @property
    def terms(self) -> str:
        """The licence of published weights."""
        return TERMS[self.method]

    @property
    def in_transformers(self) -> str | None:
        """The layout of its weights in `transformers`; None if that has no such model."""
        return "transformers" if self.method == "Mask2Former" else None

    def settings(self) -> dict[str, Any]:
        """Overrides that configure this model (see `is_choice`)."""
        settings: dict[str, Any] = {
            "model": "mask2former",
            "model/backbone": self.backbone,
            "model/pixel_embedding": "light" if self.light else "conv",
            "model/recalibration": "linear" if self.recalibrated else "none",
            **gate_settings(self.exits),
            "schedule": self.schedule,
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


def recognise_mask2former(state: State, layout: str) -> Architecture:
    """The architecture of weights under our names, which a file of some layout held.

    Raises ValueError or KeyError if they are no complete Mask2Former.
    """
    for name in NEEDED:
        if name not in state:
            raise ValueError(f"it lacks {name}")
    if (excite := state.get("pixel_decoder.encoder.recalibrate.excite.weight")) is not None and excite.dim() > 2:
        raise ValueError("token re-calibration is a convolution, which no release has: a linear layer was expected")
    schedule = schedule_of(state, 3)
    depth = num_indices(state, r"pixel_decoder\.encoder\.layers\.(\d+)\.self_attn\.attention_weights\.bias")
    architecture = Architecture(
        backbone=backbone_of(state),
        dim=state["pixel_decoder.level_embed"].shape[1],
        num_classes=state["decoder.class_embed.weight"].shape[0] - 1,
        num_queries=state["decoder.query_feat.weight"].shape[0],
        schedule=schedule,
        exits=exits_of(state, depth),
        light="pixel_decoder.pixel_embedding.0.weight" not in state,
        recalibrated=excite is not None,
        legacy_layout=excite is not None and layout == "detectron2",
        encoder_feedforward=state["pixel_decoder.encoder.layers.0.linear1.bias"].shape[0],
        decoder_layers=num_indices(state, r"decoder\.layers\.(\d+)\.linear1\.bias"),
        decoder_feedforward=state["decoder.layers.0.linear1.bias"].shape[0],
    )
    check_positive(architecture._asdict())
    return architecture


NEEDED = (
    "pixel_decoder.level_embed",
    "pixel_decoder.encoder.layers.0.linear1.bias",
    "pixel_decoder.encoder.layers.0.self_attn.attention_weights.bias",
    "decoder.class_embed.weight",
    "decoder.query_feat.weight",
    "decoder.layers.0.linear1.bias",
)


def recognise(state: State, layout: str) -> Architecture | DetectorArchitecture:
    """The architecture of weights under our names. Raises ValueError or KeyError if they are no complete model."""
    return recognise_detector(state) if is_detector(state) else recognise_mask2former(state, layout)


def is_choice(setting: str) -> bool:
    """Whether a setting of an architecture chooses from a group of the configuration, rather than being a value."""
    return "/" in setting or setting == "model"
