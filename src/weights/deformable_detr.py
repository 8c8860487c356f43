"""What names do not say of a Deformable DETR of `transformers`: order of levels, parts in one, heads kept twice."""

import re

import torch
from torch import Tensor

from src.weights.rows import State

NUM_HEADS = 8  # of attention, in every published model
PER_LEVEL = re.compile(r".*\.(sampling_offsets|attention_weights)\.(weight|bias)")
PROJECTION = re.compile(r"(pixel_decoder\.input_proj\.)(\d+)(\..*)")
LEVEL_EMBED = "pixel_decoder.level_embed"
QUERIES = "decoder.queries."
BOTH = QUERIES + "query_feat_and_embed.weight"
COPY = "model.decoder."  # prefix of heads that layers or proposals use: the same tensors as without it
HEAD = re.compile(r"(class_embed|bbox_embed)\.(\d+)(\..*)")


def arrange(state: State) -> State:
    """Under our names, theirs to ours: levels coarsest first; positions and contents of queries apart."""
    state = with_levels_reversed(state)
    both = state.pop(BOTH, None)
    if both is not None:
        if both.dim() != 2 or both.shape[1] % 2:
            raise ValueError(f"model.query_position_embeddings is {tuple(both.shape)}, expected two equal parts")
        embed, feat = both.chunk(2, 1)
        state |= {QUERIES + "query_embed.weight": embed, QUERIES + "query_feat.weight": feat}
    return state


def rearrange(state: State) -> State:
    """Undo `arrange`."""
    state = with_levels_reversed(state)
    parts = [state.pop(f"{QUERIES}query_{part}.weight", None) for part in ("embed", "feat")]
    together = [part for part in parts if part is not None]
    return state | {BOTH: torch.cat(together, 1)} if together else state


def with_levels_reversed(state: State) -> State:
    """Levels in the other order, finest or coarsest first. Raises ValueError for tensors without an axis of levels."""
    if LEVEL_EMBED not in state:
        raise ValueError("it has no level_embed: a Deformable DETR of several levels was expected")
    count = len(state[LEVEL_EMBED])
    turned: State = {}
    for name, value in state.items():
        if found := PROJECTION.fullmatch(name):
            name = f"{found[1]}{count - 1 - int(found[2])}{found[3]}"
        elif name == LEVEL_EMBED:
            value = value.flip(0)
        elif PER_LEVEL.fullmatch(name):
            value = flipped(name, value, count)
        turned[name] = value
    return turned


def flipped(name: str, value: Tensor, num_levels: int) -> Tensor:
    """A weight or bias whose first axis is (heads, levels, rest), with its levels in the other order."""
    if len(value) % (NUM_HEADS * num_levels):
        raise ValueError(
            f"{name} has {len(value)} rows, expected a multiple of {NUM_HEADS} heads x {num_levels} levels"
        )
    return value.unflatten(0, (NUM_HEADS, num_levels, -1)).flip(1).flatten(0, 2)


def tidy(state: State) -> State:
    """Their names without copies: one head of each kind if all layers share it, else one for each layer.

    Raises ValueError for copies that differ.
    """
    refines = any(name.startswith(COPY + "bbox_embed.") for name in state)
    single: State = {}
    for name, value in state.items():
        name = name.removeprefix(COPY) if HEAD.fullmatch(name.removeprefix(COPY)) else name
        if not refines and (found := HEAD.fullmatch(name)):
            name = f"{found[1]}.0{found[3]}"  # layers share their heads
        if name in single and not torch.equal(single[name], value):
            raise ValueError(f"{name}: copies of it differ, expected equal ones")
        single.setdefault(name, value)
    if any(name.startswith("bbox_embed.1.") for name in single) and "class_embed.1.weight" not in single:
        heads = {found[2] for name in single if (found := HEAD.fullmatch(name))}  # version 5 shares those of classes
        shared = {name: value for name, value in single.items() if name.startswith("class_embed.0.")}
        single |= {name.replace(".0.", f".{i}.", 1): value for name, value in shared.items() for i in heads}
    return single


def complete(state: State) -> State:
    """Their names with the copies of heads that a model with refinement, or of two stages, reads."""
    refines = any(name.startswith("bbox_embed.1.") for name in state)
    twice = ("bbox_embed.",) * refines + ("class_embed.",) * ("model.enc_output.weight" in state)
    return state | {COPY + name: value.clone() for name, value in state.items() if name.startswith(twice)}
