"""From the names of weights in other layouts to ours, and back.

Layouts are ours, detectron2's (Mask2Former's release), and those of `transformers`: its Mask2Former (`transformers`),
DETR (`detr`) and Deformable DETR (`deformable_detr`).
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from src.weights import deformable_detr, mask2former_rows
from src.weights.detector_rows import DEFORMABLE_DETR, DETECTOR_SPELLINGS, DETR
from src.weights.rows import Row, State, rename


class Layout(NamedTuple):
    """What tells a layout from ours."""

    rows: tuple[Row, ...]  # the first that matches counts
    spellings: tuple[tuple[str, str], ...] = ()  # patterns of older or newer names of the same weights
    tidy: Callable[[State], State] = dict  # before names are changed: without weights that are there twice
    arrange: Callable[[State], State] = dict  # under our names: tensors as ours have them
    rearrange: Callable[[State], State] = dict  # and back
    complete: Callable[[State], State] = dict  # under their names: with weights that must be there twice


# Not converted: derived, or read by no forward pass (loss weights, indices, counters, Swin's last norm).
UNUSED = re.compile(
    r"criterion\.|pixel_(mean|std)$|.*(relative_position_index|num_batches_tracked)$|.*\.encoder\.swin\.layernorm\."
)
LAYOUTS = {
    "detectron2": Layout(mask2former_rows.of("detectron2"), mask2former_rows.OLDER),
    "transformers": Layout(mask2former_rows.of("transformers"), mask2former_rows.NEWER),
    "detr": Layout(DETR, DETECTOR_SPELLINGS),
    "deformable_detr": Layout(
        DEFORMABLE_DETR,
        DETECTOR_SPELLINGS,
        deformable_detr.tidy,
        deformable_detr.arrange,
        deformable_detr.rearrange,
        deformable_detr.complete,
    ),
}

SIGNS = {
    "sem_seg_head.": "detectron2",
    "model.pixel_level_module.": "transformers",
    "model.input_projection.": "detr",
    "model.input_proj.": "deformable_detr",
    "pixel_decoder.encoder.": "ours",
}
SIGN = re.compile(rf"((?:[^.]+\.)*?)({'|'.join(map(re.escape, SIGNS))})")


def layouts_by_prefix(names: Iterable[str]) -> dict[str, str]:
    """The layouts among names (see `SIGNS`), by the prefix that a wrapper added, or ""."""
    found = (SIGN.match(name) for name in names)
    return {sign[1]: SIGNS[sign[2]] for sign in found if sign}


def to_ours(state: State, layout: str) -> State:
    """Tensors under our names, with parts joined; a name without a row stays as it is.

    Raises ValueError for two names of one weight, and for parts of different shapes.
    """
    parts: dict[str, dict[int, Tensor]] = {}
    known = LAYOUTS[layout]
    for name, value in known.tidy({name: value for name, value in state.items() if not UNUSED.match(name)}).items():
        ours, part = our_name(name, known)
        if part in parts.setdefault(ours, {}):
            raise ValueError(f"{name}: another name in the same file stands for {ours} as well")
        parts[ours][part] = value
    return known.arrange({name: joined(name, [part[i] for i in sorted(part)]) for name, part in parts.items()})


def joined(name: str, parts: list[Tensor]) -> Tensor:
    """A tensor from its parts along the first axis. Raises ValueError for parts of different shapes."""
    if len({part.shape for part in parts}) > 1 or (len(parts) > 1 and not parts[0].dim()):
        shapes = " and ".join(str(tuple(part.shape)) for part in parts)
        raise ValueError(f"parts of {name} are {shapes}, expected equal ones with an axis")
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def our_name(name: str, layout: Layout) -> tuple[str, int]:
    """Our name for a name of a layout, and the number of the part if our tensor has several."""
    for pattern, replacement in layout.spellings:
        name = re.sub(pattern, replacement, name)
    for row in layout.rows:
        for part, theirs in enumerate(row.theirs):
            if renamed := rename(name, theirs, row.ours):
                return renamed, part
    return name, 0


def from_ours(state: State, layout: str) -> State:
    """Tensors under the names of another layout, split where it has parts.

    Raises ValueError for a weight that the layout does not have.
    """
    theirs: State = {}
    known = LAYOUTS[layout]
    for name, value in known.rearrange(state).items():
        if UNUSED.match(name):  # such as the counter of a norm
            continue
        row = next((row for row in known.rows if rename(name, row.ours, row.ours)), None)
        if row is None or not row.theirs:
            raise ValueError(f"{name}: no such weight in the layout of {layout}")
        for word, part in zip(row.theirs, value.chunk(len(row.theirs)), strict=True):
            theirs[rename(name, row.ours, word) or name] = part.contiguous()
    return known.complete(theirs)
