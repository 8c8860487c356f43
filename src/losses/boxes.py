"""Boxes as losses compare them: centre x, centre y, width and height in 0..1 of the image."""

import torch
from torch import Tensor
from torchvision.ops import box_convert

from src.losses.base import Annotated


def relative_boxes(truth: Annotated) -> Tensor:
    """Return the boxes of a truth in 0..1 of its image: (N, 4) centre x, centre y, width, height."""
    boxes = truth.boxes()
    height, width = truth.segments.shape[-2:]
    return box_convert(boxes, "xyxy", "cxcywh") / boxes.new_tensor([width, height, width, height])


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the generalised IoU of boxes, which broadcast to (..., 4): (...), from -1 to 1 (Rezatofighi et al. 2019).

    It is nan where both boxes are a point.
    """
    (min_a, max_a), (min_b, max_b) = corners(first), corners(second)
    inter = (torch.minimum(max_a, max_b) - torch.maximum(min_a, min_b)).clamp(min=0).prod(-1)
    union = (max_a - min_a).prod(-1) + (max_b - min_b).prod(-1) - inter
    hull = (torch.maximum(max_a, max_b) - torch.minimum(min_a, min_b)).prod(-1)
    return inter / union - (hull - union) / hull


def corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the top left and the bottom right corners (..., 2) of boxes (..., 4)."""
    centre, size = boxes.split(2, -1)
    return centre - size / 2, centre + size / 2
