"""COCO's classes in published detectors, whose class numbers are COCO's category ids.

COCO's ids go from 1 to 90, and ten of them are of no category. Published DETR and Deformable DETR have one row for each
number from 0 to 90: 91 classes, and "no object" behind them in DETR.
"""

import re

import torch
from torch import Tensor

from src.system.terminal import say_once
from src.weights.detector_architecture import num_classes_of, queries_of
from src.weights.rows import State

UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
IDS = [
    number for number in range(1, 91) if number not in UNUSED_IDS
]  # of the 80 categories, in the order of COCO's files
NUM_IDS = 91
HEAD = re.compile(r"decoder\.class_heads\.(\d+)\.(weight|bias)")


def with_coco_classes(state: State, num_classes: int | None, source: str) -> State:
    """Weights under our names for a model of COCO's 80 categories, if they have 91; unchanged otherwise."""
    heads = [name for name in state if HEAD.fullmatch(name)]
    if not heads or num_classes != len(IDS) or num_classes_of(state) != NUM_IDS:
        return state
    say_once(f"weights={source}: of its {NUM_IDS} classes, those of COCO's {len(IDS)} categories are taken")
    proposals = f"decoder.class_heads.{len(heads) // 2 - 1}." if queries_of(state) == "proposed" else None
    return state | {
        name: rows(state[name], first_counts=proposals is not None and name.startswith(proposals)) for name in heads
    }


def rows(head: Tensor, first_counts: bool) -> Tensor:
    """The rows of COCO's categories, and of "no object".

    `first_counts`: a head of proposals without classes, whose first row says how good one is, and must stay the first.
    """
    ids = [0, *IDS[1:]] if first_counts else IDS
    return head[torch.tensor([*ids, *range(NUM_IDS, len(head))], device=head.device)]
