"""Predicted boxes to scored boxes of the original image, for one image at a time (DETR and Deformable DETR, inference).

Letters: Q queries, K classes, M detections.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from src.models.box_prediction import BoxPrediction
from src.models.boxes import to_corners
from src.models.postprocess import Frame


class Boxes(NamedTuple):
    """Scored boxes, which may overlap, best first."""

    scores: Tensor  # (M,)
    labels: Tensor  # (M,) class index
    boxes: Tensor  # (M, 4) left, top, right, bottom in pixels of the original image


class BoxPostprocess:
    """Boxes of things from queries.

    With a class "no object", a query is one detection, of its most likely class (DETR); without, queries compete with
    a score for each class, and the best pairs of query and class are detections (Deformable DETR).

    Args:
        isthing: of each class; others are never detected.
        num_detections: of an image, at most.
    """

    def __init__(self, isthing: Sequence[bool], num_detections: int = 100):
        self.isthing = torch.tensor(isthing)
        self.num_detections = num_detections

    def boxes(self, prediction: BoxPrediction, image: int, frame: Frame) -> Boxes:
        """Return the detections of one image of the batch, clipped to the image."""
        logits = prediction.class_logits[image].float()  # (Q, K or K + 1)
        num_classes = len(self.isthing)
        if logits.shape[1] not in (num_classes, num_classes + 1):
            raise ValueError(
                f"predictions have {logits.shape[1]} columns for {num_classes} classes, expected {num_classes}, or one "
                "more with 'no object'"
            )
        exclusive = logits.shape[1] > num_classes
        scores = logits.softmax(-1)[:, :-1] if exclusive else logits.sigmoid()  # (Q, K)
        scores = scores.where(self.isthing.to(scores.device), -1)
        best = scores.max(1, keepdim=True) if exclusive else None
        candidates = scores if best is None else best.values  # (Q, K or 1)
        top, pairs = candidates.flatten().topk(min(self.num_detections, candidates.numel()))
        top, pairs = top[top >= 0], pairs[top >= 0]
        queries, labels = pairs // candidates.shape[1], pairs % candidates.shape[1]
        if best is not None:
            labels = best.indices[queries, 0]
        return Boxes(top, labels, pixels(prediction.boxes[image][queries], frame.original))


def pixels(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Return left, top, right, bottom in pixels of boxes (M, 4) in 0..1 of an image (height, width), clipped to it."""
    height, width = size
    scale = torch.tensor([width, height, width, height], dtype=torch.float32, device=boxes.device)
    return to_corners(boxes.float()).clamp(0, 1) * scale
