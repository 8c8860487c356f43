"""Names of a Mask2Former's weights in three layouts: ours, detectron2's and that of `transformers`.

detectron2's names are those of Mask2Former's own release, which PRO-SCALE's and ECO-M2F's extend.
"""

from collections.abc import Iterable
from typing import NamedTuple

from src.weights.rows import Row


class Names(NamedTuple):
    """How one name begins in each layout, as `Row` has it."""

    ours: str
    detectron2: tuple[str, ...] | str
    transformers: tuple[str, ...] | str

    def row(self, layout: str) -> Row:
        """Our name and those of a layout."""
        names = getattr(self, layout)
        return Row(self.ours, (names,) if isinstance(names, str) else names)


PIXEL, HEAD = "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor."  # detectron2's
BODY, NECK = "model.pixel_level_module.encoder.", "model.pixel_level_module.decoder."  # transformers'
QUERIES = "model.transformer_module."

SWIN = ("backbone.body.layers_#.blocks.#.", "backbone.layers.#.blocks.#.", BODY + "encoder.layers.#.blocks.#.")
ENCODER = ("pixel_decoder.encoder.layers.#.", PIXEL + "transformer.encoder.layers.#.", NECK + "encoder.layers.#.")
CROSS = ("decoder.layers.#.", HEAD + "transformer_cross_attention_layers.#.", QUERIES + "decoder.layers.#.")
SELF = ("decoder.layers.#.", HEAD + "transformer_self_attention_layers.#.", QUERIES + "decoder.layers.#.")
FEED = ("decoder.layers.#.", HEAD + "transformer_ffn_layers.#.", QUERIES + "decoder.layers.#.")


def below(place: tuple[str, str, str], ours: str, detectron2: str, *transformers: str) -> Names:
    """A row below a place that has a name in each layout."""
    return Names(place[0] + ours, place[1] + detectron2, tuple(place[2] + name for name in transformers))


def swin() -> Iterable[Names]:
    """timm's Swin."""
    yield Names(
        "backbone.body.patch_embed.proj.",
        "backbone.patch_embed.proj.",
        BODY + "embeddings.patch_embeddings.projection.",
    )
    yield Names("backbone.body.patch_embed.norm.", "backbone.patch_embed.norm.", BODY + "embeddings.norm.")
    yield below(SWIN, "norm1.", "norm1.", "layernorm_before.")
    yield below(SWIN, "norm2.", "norm2.", "layernorm_after.")
    yield below(SWIN, "attn.relative_", "attn.relative_", "attention.self.relative_")
    yield below(SWIN, "attn.qkv.", "attn.qkv.", *(f"attention.self.{name}." for name in ("query", "key", "value")))
    yield below(SWIN, "attn.proj.", "attn.proj.", "attention.output.dense.")
    yield below(SWIN, "mlp.fc1.", "mlp.fc1.", "intermediate.dense.")
    yield below(SWIN, "mlp.fc2.", "mlp.fc2.", "output.dense.")
    for i in range(4):
        yield Names(f"backbone.norms.{i}.", f"backbone.norm{i}.", f"{BODY}hidden_states_norms.stage{i + 1}.")
        # timm downsamples at the beginning of a stage, the others at the end of the one before
        names = f"backbone.layers.{i}.downsample.", f"{BODY}encoder.layers.{i}.downsample."
        yield Names(f"backbone.body.layers_{i + 1}.downsample.", *names)


def resnet() -> Iterable[Names]:
    """timm's ResNet. The first row that matches counts, so norms precede the convolutions whose names they extend."""
    yield Names("backbone.body.bn1.", "backbone.stem.conv1.norm.", BODY + "embedder.embedder.normalization.")
    yield Names("backbone.body.conv1.", "backbone.stem.conv1.", BODY + "embedder.embedder.convolution.")
    for i in range(4):
        block = f"backbone.body.layer{i + 1}.#.", f"backbone.res{i + 2}.#.", f"{BODY}encoder.stages.{i}.layers.#."
        yield below(block, "downsample.1.", "shortcut.norm.", "shortcut.normalization.")
        yield below(block, "downsample.0.", "shortcut.", "shortcut.convolution.")
        for j in range(3):
            yield below(block, f"bn{j + 1}.", f"conv{j + 1}.norm.", f"layer.{j}.normalization.")
            yield below(block, f"conv{j + 1}.", f"conv{j + 1}.", f"layer.{j}.convolution.")


def pixel_decoder() -> Iterable[Names]:
    """Mask2Former's pixel decoder, with what the two papers add."""
    yield Names("pixel_decoder.input_proj.", PIXEL + "input_proj.", NECK + "input_projections.")
    yield Names("pixel_decoder.level_embed", PIXEL + "transformer.level_embed", NECK + "level_embed")
    yield below(ENCODER, "self_attn.", "self_attn.", "self_attn.")
    yield below(ENCODER, "norm1.", "norm1.", "self_attn_layer_norm.")
    yield below(ENCODER, "norm2.", "norm2.", "final_layer_norm.")
    yield below(ENCODER, "linear", "linear", "fc")
    yield Names("pixel_decoder.encoder.recalibrate.excite.", PIXEL + "transformer.encoder.token_excite.ops.", ())
    yield Names("gate.head.", PIXEL + "transformer.encoder.gt.head.", ())
    yield Names("pixel_decoder.lateral.1.", PIXEL + "adapter_1.norm.", NECK + "adapter_1.1.")
    yield Names("pixel_decoder.lateral.0.", PIXEL + "adapter_1.", NECK + "adapter_1.0.")
    yield Names("pixel_decoder.pixel_embedding.1.", PIXEL + "layer_1.norm.", NECK + "layer_1.1.")
    yield Names("pixel_decoder.pixel_embedding.0.", PIXEL + "layer_1.", NECK + "layer_1.0.")
    yield Names("pixel_decoder.mask_features.", PIXEL + "mask_features.", NECK + "mask_projection.")


def transformer_decoder() -> Iterable[Names]:
    """Mask2Former's transformer decoder."""
    yield below(CROSS, "cross_attn.in_proj.", "multihead_attn.in_proj_", "cross_attn.in_proj_")
    yield below(CROSS, "cross_attn.out_proj.", "multihead_attn.out_proj.", "cross_attn.out_proj.")
    yield below(CROSS, "norm1.", "norm.", "cross_attn_layer_norm.")
    yield below(SELF, "self_attn.in_proj.", "self_attn.in_proj_", *(f"self_attn.{part}_proj." for part in "qkv"))
    yield below(SELF, "self_attn.out_proj.", "self_attn.out_proj.", "self_attn.out_proj.")
    yield below(SELF, "norm2.", "norm.", "self_attn_layer_norm.")
    yield below(FEED, "linear", "linear", "fc")
    yield below(FEED, "norm3.", "norm.", "final_layer_norm.")
    yield Names("decoder.norm.", HEAD + "decoder_norm.", QUERIES + "decoder.layernorm.")
    yield Names("decoder.query_feat.", HEAD + "query_feat.", QUERIES + "queries_features.")
    yield Names("decoder.query_embed.", HEAD + "query_embed.", QUERIES + "queries_embedder.")
    yield Names("decoder.level_embed.", HEAD + "level_embed.", QUERIES + "level_embed.")
    yield Names("decoder.class_embed.", HEAD + "class_embed.", "class_predictor.")
    for i in range(3):
        names = f"{HEAD}mask_embed.layers.{i}.", f"{QUERIES}decoder.mask_predictor.mask_embedder.{i}.0."
        yield Names(f"decoder.mask_embed.{2 * i}.", *names)


NAMES = (*swin(), *resnet(), *pixel_decoder(), *transformer_decoder())

OLDER = (  # names of detectron2's layout: heads before version 2
    (r"^sem_seg_head\.(?!pixel_decoder\.|predictor\.)", PIXEL),
    (r"\.static_query\.", ".query_feat."),
)
NEWER = (  # names of version 5 of transformers in memory; its files keep those of version 4
    (r"\.encoder\.swin\.", ".encoder."),
    (r"\.attention\.q_proj\.", ".attention.self.query."),
    (r"\.attention\.k_proj\.", ".attention.self.key."),
    (r"\.attention\.v_proj\.", ".attention.self.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.attention\.relative_position_bias\.", ".attention.self."),
    (r"(\.blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(\.blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
)


def of(layout: str) -> tuple[Row, ...]:
    """The rows of `detectron2` or `transformers`."""
    return tuple(names.row(layout) for names in NAMES)
