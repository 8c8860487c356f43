"""Names of weights in three layouts: ours, detectron2's and that of `transformers`.

detectron2's names are those of Mask2Former's own release, which PRO-SCALE's and ECO-M2F's extend.
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

State = dict[str, Tensor]


class Row(NamedTuple):
    """How one name begins in each layout; # stands for a number, and the rest of the name is the same everywhere.

    Several names are equal parts, along the first axis, of one tensor of ours; () means that the layout has none.
    """

    ours: str
    detectron2: tuple[str, ...] | str
    transformers: tuple[str, ...] | str

    def names(self, layout: str) -> tuple[str, ...]:
        """The names in a layout."""
        names = getattr(self, layout)
        return (names,) if isinstance(names, str) else names


PIXEL, HEAD = "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor."  # detectron2's
BODY, NECK = "model.pixel_level_module.encoder.", "model.pixel_level_module.decoder."  # transformers'
QUERIES = "model.transformer_module."

SWIN = ("backbone.body.layers_#.blocks.#.", "backbone.layers.#.blocks.#.", BODY + "encoder.layers.#.blocks.#.")
ENCODER = ("pixel_decoder.encoder.layers.#.", PIXEL + "transformer.encoder.layers.#.", NECK + "encoder.layers.#.")
CROSS = ("decoder.layers.#.", HEAD + "transformer_cross_attention_layers.#.", QUERIES + "decoder.layers.#.")
SELF = ("decoder.layers.#.", HEAD + "transformer_self_attention_layers.#.", QUERIES + "decoder.layers.#.")
FEED = ("decoder.layers.#.", HEAD + "transformer_ffn_layers.#.", QUERIES + "decoder.layers.#.")


def below(place: tuple[str, str, str], ours: str, detectron2: str, *transformers: str) -> Row:
    """A row below a place that has a name in each layout."""
    return Row(place[0] + ours, place[1] + detectron2, tuple(place[2] + name for name in transformers))


def swin() -> Iterable[Row]:
    """timm's Swin."""
    yield Row(
        "backbone.body.patch_embed.proj.",
        "backbone.patch_embed.proj.",
        BODY + "embeddings.patch_embeddings.projection.",
    )
    yield Row("backbone.body.patch_embed.norm.", "backbone.patch_embed.norm.", BODY + "embeddings.norm.")
    yield below(SWIN, "norm1.", "norm1.", "layernorm_before.")
    yield below(SWIN, "norm2.", "norm2.", "layernorm_after.")
    yield below(SWIN, "attn.relative_", "attn.relative_", "attention.self.relative_")
    yield below(SWIN, "attn.qkv.", "attn.qkv.", *(f"attention.self.{name}." for name in ("query", "key", "value")))
    yield below(SWIN, "attn.proj.", "attn.proj.", "attention.output.dense.")
    yield below(SWIN, "mlp.fc1.", "mlp.fc1.", "intermediate.dense.")
    yield below(SWIN, "mlp.fc2.", "mlp.fc2.", "output.dense.")
    for i in range(4):
        yield Row(f"backbone.norms.{i}.", f"backbone.norm{i}.", f"{BODY}hidden_states_norms.stage{i + 1}.")
        # timm downsamples at the beginning of a stage, the others at the end of the one before
        names = f"backbone.layers.{i}.downsample.", f"{BODY}encoder.layers.{i}.downsample."
        yield Row(f"backbone.body.layers_{i + 1}.downsample.", *names)


def resnet() -> Iterable[Row]:
    """timm's ResNet. The first row that matches counts, so norms precede the convolutions whose names they extend."""
    yield Row("backbone.body.bn1.", "backbone.stem.conv1.norm.", BODY + "embedder.embedder.normalization.")
    yield Row("backbone.body.conv1.", "backbone.stem.conv1.", BODY + "embedder.embedder.convolution.")
    for i in range(4):
        block = f"backbone.body.layer{i + 1}.#.", f"backbone.res{i + 2}.#.", f"{BODY}encoder.stages.{i}.layers.#."
        yield below(block, "downsample.1.", "shortcut.norm.", "shortcut.normalization.")
        yield below(block, "downsample.0.", "shortcut.", "shortcut.convolution.")
        for j in range(3):
            yield below(block, f"bn{j + 1}.", f"conv{j + 1}.norm.", f"layer.{j}.normalization.")
            yield below(block, f"conv{j + 1}.", f"conv{j + 1}.", f"layer.{j}.convolution.")


def pixel_decoder() -> Iterable[Row]:
    """Mask2Former's pixel decoder, with what the two papers add."""
    yield Row("pixel_decoder.input_proj.", PIXEL + "input_proj.", NECK + "input_projections.")
    yield Row("pixel_decoder.level_embed", PIXEL + "transformer.level_embed", NECK + "level_embed")
    yield below(ENCODER, "self_attn.", "self_attn.", "self_attn.")
    yield below(ENCODER, "norm1.", "norm1.", "self_attn_layer_norm.")
    yield below(ENCODER, "norm2.", "norm2.", "final_layer_norm.")
    yield below(ENCODER, "linear", "linear", "fc")
    yield Row("pixel_decoder.encoder.recalibrate.excite.", PIXEL + "transformer.encoder.token_excite.ops.", ())
    yield Row("gate.head.", PIXEL + "transformer.encoder.gt.head.", ())
    yield Row("pixel_decoder.lateral.1.", PIXEL + "adapter_1.norm.", NECK + "adapter_1.1.")
    yield Row("pixel_decoder.lateral.0.", PIXEL + "adapter_1.", NECK + "adapter_1.0.")
    yield Row("pixel_decoder.pixel_embedding.1.", PIXEL + "layer_1.norm.", NECK + "layer_1.1.")
    yield Row("pixel_decoder.pixel_embedding.0.", PIXEL + "layer_1.", NECK + "layer_1.0.")
    yield Row("pixel_decoder.mask_features.", PIXEL + "mask_features.", NECK + "mask_projection.")


def transformer_decoder() -> Iterable[Row]:
    """Mask2Former's transformer decoder."""
    yield below(CROSS, "cross_attn.in_proj.", "multihead_attn.in_proj_", "cross_attn.in_proj_")
    yield below(CROSS, "cross_attn.out_proj.", "multihead_attn.out_proj.", "cross_attn.out_proj.")
    yield below(CROSS, "norm1.", "norm.", "cross_attn_layer_norm.")
    yield below(SELF, "self_attn.in_proj.", "self_attn.in_proj_", *(f"self_attn.{part}_proj." for part in "qkv"))
    yield below(SELF, "self_attn.out_proj.", "self_attn.out_proj.", "self_attn.out_proj.")
    yield below(SELF, "norm2.", "norm.", "self_attn_layer_norm.")
    yield below(FEED, "linear", "linear", "fc")
    yield below(FEED, "norm3.", "norm.", "final_layer_norm.")
    yield Row("decoder.norm.", HEAD + "decoder_norm.", QUERIES + "decoder.layernorm.")
    yield Row("decoder.query_feat.", HEAD + "query_feat.", QUERIES + "queries_features.")
    yield Row("decoder.query_embed.", HEAD + "query_embed.", QUERIES + "queries_embedder.")
    yield Row("decoder.level_embed.", HEAD + "level_embed.", QUERIES + "level_embed.")
    yield Row("decoder.class_embed.", HEAD + "class_embed.", "class_predictor.")
    for i in range(3):
        names = f"{HEAD}mask_embed.layers.{i}.", f"{QUERIES}decoder.mask_predictor.mask_embedder.{i}.0."
        yield Row(f"decoder.mask_embed.{2 * i}.", *names)


ROWS = (*swin(), *resnet(), *pixel_decoder(), *transformer_decoder())

# Not converted: derived, or read by no forward pass (loss weights, indices, counters, Swin's last norm).
UNUSED = re.compile(
    r"criterion\.|pixel_(mean|std)$|.*(relative_position_index|num_batches_tracked)$|.*\.encoder\.swin\.layernorm\."
)
SPELLINGS = {  # older and newer names of the same weights
    "detectron2": (  # heads before version 2
        (r"^sem_seg_head\.(?!pixel_decoder\.|predictor\.)", PIXEL),
        (r"\.static_query\.", ".query_feat."),
    ),
    "transformers": (  # version 5 in memory; its files keep the names of version 4
        (r"\.encoder\.swin\.", ".encoder."),
        (r"\.attention\.q_proj\.", ".attention.self.query."),
        (r"\.attention\.k_proj\.", ".attention.self.key."),
        (r"\.attention\.v_proj\.", ".attention.self.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.attention\.relative_position_bias\.", ".attention.self."),
        (r"(\.blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
        (r"(\.blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    ),
}

SIGNS = {"sem_seg_head.": "detectron2", "model.pixel_level_module.": "transformers", "pixel_decoder.encoder.": "ours"}
SIGN = re.compile(rf"((?:[^.]+\.)*?)({'|'.join(map(re.escape, SIGNS))})")


def layouts_by_prefix(names: Iterable[str]) -> dict[str, str]:
    """The layouts (`detectron2`, `transformers` or `ours`) among names, by the prefix that a wrapper added, or ""."""
    found = (SIGN.match(name) for name in names)
    return {sign[1]: SIGNS[sign[2]] for sign in found if sign}


def to_ours(state: State, layout: str) -> State:
    """Tensors under our names, with parts joined; a name without a row stays as it is.

    Raises ValueError for two names of one weight, and for parts of different shapes.
    """
    parts: dict[str, dict[int, Tensor]] = {}
    for name, value in state.items():
        if not UNUSED.match(name):
            ours, part = our_name(name, layout)
            if part in parts.setdefault(ours, {}):
                raise ValueError(f"{name}: another name in the same file stands for {ours} as well")
            parts[ours][part] = value
    return {name: joined(name, [part[i] for i in sorted(part)]) for name, part in parts.items()}


def joined(name: str, parts: list[Tensor]) -> Tensor:
    """A tensor from its parts along the first axis. Raises ValueError for parts of different shapes."""
    if len({part.shape for part in parts}) > 1 or (len(parts) > 1 and not parts[0].dim()):
        shapes = " and ".join(str(tuple(part.shape)) for part in parts)
        raise ValueError(f"parts of {name} are {shapes}, expected equal ones with an axis")
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def our_name(name: str, layout: str) -> tuple[str, int]:
    """Our name for a name of a layout, and the number of the part if our tensor has several."""
    for pattern, replacement in SPELLINGS[layout]:
        name = re.sub(pattern, replacement, name)
    for row in ROWS:
        for part, theirs in enumerate(row.names(layout)):
            if renamed := rename(name, theirs, row.ours):
                return renamed, part
    return name, 0


def from_ours(state: State, layout: str) -> State:
    """Tensors under the names of another layout, split where it has parts.

    Raises ValueError for a weight that the layout does not have.
    """
    theirs: State = {}
    for name, value in state.items():
        if UNUSED.match(name):  # such as the counter of a norm
            continue
        row = next((row for row in ROWS if rename(name, row.ours, row.ours)), None)
        if row is None or not row.names(layout):
            raise ValueError(f"{name}: no such weight in the layout of {layout}")
        names = row.names(layout)
        for word, part in zip(names, value.chunk(len(names)), strict=True):
            theirs[rename(name, row.ours, word) or name] = part.contiguous()
    return theirs


def rename(name: str, old: str, new: str) -> str | None:
    """The name with its beginning `old` replaced by `new`, numbers kept; None if it begins otherwise."""
    found = pattern_of(old).fullmatch(name)
    if found is None:
        return None
    *numbers, rest = found.groups()
    for number in numbers:
        new = new.replace("#", number, 1)
    return new + rest


@cache
def pattern_of(beginning: str) -> re.Pattern[str]:
    """A pattern for names with some beginning; its groups are their numbers and the rest."""
    return re.compile(re.escape(beginning).replace(r"\#", r"(\d+)") + "(.*)")
