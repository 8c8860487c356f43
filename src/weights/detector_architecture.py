"""The architecture of a detector, recognised by the names and shapes of its weights."""

from typing import Any, NamedTuple

from src.weights.backbones import KNOWN, backbone_of, num_indices
from src.weights.encoders import LAYERS, check_positive, exits_of, gate_settings, schedule_of
from src.weights.rows import State

APACHE = "Apache License 2.0"  # of DETR's, Deformable DETR's and DINO's code and weights
QUERIES = "decoder.queries."
NUM_PROPOSALS = 300  # that become queries of two stages: no weight tells, and every published model has as many
MODELS = {"DETR": "detr", "Deformable DETR": "deformable_detr", "DINO": "dino"}  # choices of conf/model


class DetectorArchitecture(NamedTuple):
    """What a detector is built of."""

    family: str  # DETR, Deformable DETR or DINO
    backbone: str  # a choice of model/backbone; a description of any other
    dim: int
    num_classes: int
    num_queries: int
    schedule: list[int]
    exits: list[int] | None  # of its gate; None without a gate
    queries: str | None  # a choice of model/queries; None for DETR
    own_heads: bool  # of each decoder layer
    denoised: bool  # trained with noisy queries
    encoder_feedforward: int
    decoder_layers: int
    decoder_feedforward: int

    @property
    def refined(self) -> bool:
        """Whether decoder layers move boxes: in DINO always, in Deformable DETR those that have heads of their own."""
        return self.own_heads or self.family == "DINO"

    @property
    def method(self) -> str:
        """The paper that describes it, and the one that changed its encoder."""
        proscale = "PRO-SCALE on " * any(self.schedule[:-1])
        eco = "ECO-M2F's exits on " * (self.exits is not None)
        kinds = {"learned": "" if not self.refined else " with refinement", "proposed": " of two stages"}
        return f"{eco}{proscale}{self.family}{kinds.get(self.queries or '', '')}"

    @property
    def known(self) -> bool:
        """Whether conf/model/backbone has its backbone."""
        return self.backbone in KNOWN

    @property
    def terms(self) -> str:
        """The licence of published weights."""
        return APACHE

    @property
    def legacy_layout(self) -> bool:
        """Never: it has no token re-calibration of published weights."""
        return False

    @property
    def in_transformers(self) -> str | None:
        """The layout of its weights in `transformers`; None if that has no such model."""
        plain = self.exits is None and not any(self.schedule[:-1])
        return {"DETR": "detr", "Deformable DETR": "deformable_detr"}.get(self.family) if plain else None

    def settings(self) -> dict[str, Any]:
        """Overrides that configure this model (see `is_choice`)."""
        settings: dict[str, Any] = {
            "model": MODELS[self.family],
            "model/backbone": self.backbone,
            **gate_settings(self.exits),
            "segmentation": "boxes",
            "schedule": self.schedule,
            "dim": self.dim,
            "num_queries": self.num_queries,
            "model.pixel_decoder.encoder.dim_feedforward": self.encoder_feedforward,
            "model.decoder.num_layers": self.decoder_layers,
            "model.decoder.dim_feedforward": self.decoder_feedforward,
        }
        if self.queries is not None:
            settings |= {"model/queries": self.queries, "model.decoder.refine": self.refined}
        if self.family == "DINO":
            settings["model.decoder.share_heads"] = not self.own_heads
        if self.family == "DINO" and not self.denoised:
            settings["model.decoder.denoising"] = None
        return settings

    def __str__(self) -> str:
        """One line: method, backbone, schedule, classes and queries."""
        schedule = " ".join(map(str, self.schedule))
        numbers = f"{self.num_classes} classes, {self.num_queries} queries"
        return f"{self.method}, {self.backbone}, schedule {schedule}, {numbers}"


def is_detector(state: State) -> bool:
    """Whether weights under our names predict boxes."""
    return any(name.startswith(("decoder.class_heads.", "decoder.box_heads.")) for name in state)


def family_of(state: State) -> str | None:
    """Mask2Former, DETR, Deformable DETR or DINO; None if the weights, under our names, have no heads."""
    if not is_detector(state):
        return "Mask2Former" if "decoder.class_embed.weight" in state else None
    kind = queries_of(state)
    return "DETR" if kind is None else "DINO" if kind == "mixed" else "Deformable DETR"


def queries_of(state: State) -> str | None:
    """The choice of model/queries; None for DETR, which has none."""
    if not any(name.startswith(QUERIES) for name in state):
        return None
    if not any(name.startswith(QUERIES + "proposals.") for name in state):
        return "learned"
    return "mixed" if QUERIES + "query_feat.weight" in state else "proposed"


def num_classes_of(state: State) -> int | None:
    """How many classes the heads of weights under our names tell apart, "no object" aside; None without heads."""
    if not is_detector(state):
        head = state.get("decoder.class_embed.bias")
        return None if head is None else len(head) - 1
    return len(state["decoder.class_heads.0.bias"]) - (queries_of(state) is None)


def recognise_detector(state: State) -> DetectorArchitecture:
    """The architecture of weights under our names. Raises ValueError or KeyError if they are no complete detector."""
    queries = queries_of(state)
    shared_heads = 1 + (queries in ("proposed", "mixed"))  # as many as there are without refinement
    depth = num_indices(state, r"pixel_decoder\.encoder\.layers\.(\d+)\.linear1\.bias")
    if queries is None:
        schedule, num_queries = [depth], len(state["decoder.query_embed.weight"])
    else:
        schedule = schedule_of(state, len(state["pixel_decoder.level_embed"]))
        feat = state.get(QUERIES + "query_feat.weight")
        num_queries = NUM_PROPOSALS if feat is None else len(feat)
    architecture = DetectorArchitecture(
        family=family_of(state) or "",
        backbone=backbone_of(state),
        dim=state["decoder.layers.0.norm1.bias"].shape[0],
        num_classes=num_classes_of(state) or 0,
        num_queries=num_queries,
        schedule=schedule,
        exits=exits_of(state, depth),
        queries=queries,
        own_heads=num_indices(state, r"decoder\.box_heads\.(\d+)\.0\.bias") > shared_heads,
        denoised="decoder.denoising.label_embed.weight" in state,
        encoder_feedforward=len(state[LAYERS + "0.linear1.bias"]),
        decoder_layers=num_indices(state, r"decoder\.layers\.(\d+)\.linear1\.bias"),
        decoder_feedforward=len(state["decoder.layers.0.linear1.bias"]),
    )
    check_positive(architecture._asdict())
    return architecture
