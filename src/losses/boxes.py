"""How far boxes are apart."""

import torch
from torch import Tensor

from src.models.boxes import to_corners


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the generalised IoU of boxes, which broadcast to (..., 4): (...), from -1 to 1 (Rezatofighi et al. 2019).

    Boxes are centre x, centre y, width and height. It is nan where both are a point.
    """
    (min_a, max_a), (min_b, max_b) = (to_corners(boxes).split(2, -1) for boxes in (first, second))
    inter = (torch.minimum(max_a, max_b) - torch.maximum(min_a, min_b)).clamp(min=0).prod(-1)
    union = (max_a - min_a).prod(-1) + (max_b - min_b).prod(-1) - inter
    hull = (torch.maximum(max_a, max_b) - torch.minimum(min_a, min_b)).prod(-1)
    return inter / union - (hull - union) / hull
