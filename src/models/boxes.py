"""Boxes as numbers in 0..1, and what the layers of a detector do with them.

Letters: B images, Q queries, C channels.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.position import waves

SMALLEST = 1e-5  # distance to 0 and 1 at which the inverse of the sigmoid is cut off


def inverse_sigmoid(x: Tensor) -> Tensor:
    """The logit of each number in 0..1, finite also for 0 and 1."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=SMALLEST) / (1 - x).clamp(min=SMALLEST))


def moved(reference: Tensor, step: Tensor) -> Tensor:
    """Boxes (B, Q, 4) in 0..1: references moved by steps (B, Q, 4) in logits (Deformable DETR, section A.3).

    A reference (B, Q, 4) is a box; a point (B, Q, 2) leaves width and height to the step.
    """
    return (step + F.pad(inverse_sigmoid(reference), (0, 4 - reference.shape[-1]))).sigmoid()


def box_embedding(boxes: Tensor, dim: int) -> Tensor:
    """Sine embedding of boxes (B, Q, 4) in 0..1: (B, Q, 2 C) for C = dim, C / 2 features for each number."""
    return waves(boxes.float() * 2 * math.pi, dim // 2).flatten(2)


def to_corners(boxes: Tensor) -> Tensor:
    """(centre x, centre y, width, height) to (left, top, right, bottom)."""
    centre, size = boxes.chunk(2, -1)
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def to_centres(corners: Tensor) -> Tensor:
    """(left, top, right, bottom) to (centre x, centre y, width, height)."""
    first, last = corners.chunk(2, -1)
    return torch.cat([(first + last) / 2, last - first], -1)


def boxes_in_image(truth: Any) -> Tensor:
    """The boxes of a truth in 0..1 of its image, (N, 4), centre x, centre y, width, height.

    It has them as `.boxes()`, corners in pixels of `.segments` (..., h, w).
    """
    height, width = truth.segments.shape[-2:]
    corners = truth.boxes()
    return to_centres(corners / corners.new_tensor([width, height, width, height]))
