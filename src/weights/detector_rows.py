"""Names of a detector's weights: ours, and those of DETR and Deformable DETR in `transformers`."""

from collections.abc import Iterable

from src.weights.mask2former_rows import BODY, resnet
from src.weights.rows import Row

BACKBONE = "model.backbone.conv_encoder.model."
ENCODER, DECODER = "encoder.layers.#.", "decoder.layers.#."
DETECTOR_SPELLINGS = (  # version 5 in memory; its files keep the names of version 4
    (r"^model\.backbone\.(?!conv_encoder\.)", "model.backbone.conv_encoder."),
    (r"\.o_proj\.", ".out_proj."),
    (r"(\.layers\.\d+)\.mlp\.fc", r"\1.fc"),
)


def backbone() -> Iterable[Row]:
    """A ResNet, of timm as published, or of transformers."""
    for part in ("conv1.", "bn1.", "layer#."):
        yield Row("backbone.body." + part, (BACKBONE + part,))
    for names in resnet():
        ours, theirs = names.row("transformers")
        yield Row(ours, tuple(name.replace(BODY, BACKBONE) for name in theirs))


def layer(ours: str, theirs: str, **norms: str) -> Iterable[Row]:
    """The parts that layers of encoders and decoders have in common; norms by our names."""
    for our_norm, their_norm in norms.items():
        yield Row(f"{ours}{our_norm}.", (f"{theirs}{their_norm}_layer_norm.",))
    yield Row(ours + "linear", (theirs + "fc",))


def attention(ours: str, theirs: str) -> Iterable[Row]:
    """Multi-head attention."""
    yield Row(ours + "in_proj.", tuple(f"{theirs}{part}_proj." for part in "qkv"))
    yield Row(ours + "out_proj.", (theirs + "out_proj.",))


def both() -> Iterable[Row]:
    """What both models have."""
    yield from backbone()
    ours, theirs = "pixel_decoder." + ENCODER, "model." + ENCODER
    yield from layer(ours, theirs, norm1="self_attn", norm2="final")
    ours, theirs = DECODER, "model." + DECODER
    yield from layer(ours, theirs, norm1="self_attn", norm2="encoder_attn", norm3="final")
    yield from attention(ours + "self_attn.", theirs + "self_attn.")


def detr() -> Iterable[Row]:
    """DETR: one level, one pair of heads."""
    yield from both()
    yield Row("pixel_decoder.input_proj.0.0.", ("model.input_projection.",))
    yield from attention(f"pixel_decoder.{ENCODER}self_attn.", f"model.{ENCODER}self_attn.")
    yield from attention(DECODER + "cross_attn.", f"model.{DECODER}encoder_attn.")
    yield Row("decoder.norm.", ("model.decoder.layernorm.",))
    yield Row("decoder.query_embed.", ("model.query_position_embeddings.",))
    yield Row("decoder.class_heads.0.", ("class_labels_classifier.",))
    for i in range(3):
        yield Row(f"decoder.box_heads.0.{2 * i}.", (f"bbox_predictor.layers.{i}.",))


def deformable_detr() -> Iterable[Row]:
    """Deformable DETR: plain, with refinement, and with two stages."""
    yield from both()
    yield Row("pixel_decoder.input_proj.", ("model.input_proj.",))
    yield Row("pixel_decoder.level_embed", ("model.level_embed",))
    yield Row(f"pixel_decoder.{ENCODER}self_attn.", (f"model.{ENCODER}self_attn.",))
    yield Row(DECODER + "cross_attn.", (f"model.{DECODER}encoder_attn.",))
    yield Row("decoder.queries.query_feat_and_embed.", ("model.query_position_embeddings.",))  # see `arrange`
    yield Row("decoder.queries.reference.", ("model.reference_points.",))
    yield Row("decoder.queries.proposals.linear.", ("model.enc_output.",))
    yield Row("decoder.queries.proposals.norm.", ("model.enc_output_norm.",))
    yield Row("decoder.queries.embed.", ("model.pos_trans.",))
    yield Row("decoder.queries.norm.", ("model.pos_trans_norm.",))
    yield Row("decoder.class_heads.#.", ("class_embed.#.",))
    for i in range(3):
        yield Row(f"decoder.box_heads.#.{2 * i}.", (f"bbox_embed.#.layers.{i}.",))


DETR, DEFORMABLE_DETR = tuple(detr()), tuple(deformable_detr())
