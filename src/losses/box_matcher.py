"""Matches queries to annotated boxes, one to one, for each image and prediction (DETR, section 3.1).

Letters: B images, Q queries, K classes, N objects of the image with the most.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from src.losses.boxes import generalized_iou
from src.losses.matcher import UNMATCHABLE, HungarianMatcher
from src.models.box_prediction import BoxPrediction, Pairs

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss: the weight of objects, and how little easy queries count


class BoxMatcher:
    """Matches by class, L1 distance of boxes and generalised IoU."""

    def __init__(self, class_weight: float = 1.0, box_weight: float = 5.0, giou_weight: float = 2.0):
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.giou_weight = giou_weight

    @torch.no_grad()
    def __call__(
        self, predictions: Sequence[BoxPrediction], labels: Sequence[Tensor], boxes: Sequence[Tensor], num_classes: int
    ) -> tuple[list[Pairs], int]:
        """Return the pairs of each prediction, min(queries, objects) of an image, and how many costs were not finite.

        Pairs that a prediction knows already are returned as they are.

        Args:
            predictions: one per decoder layer, or proposals, or of denoising queries; queries may differ in number.
            labels: B x (N_b,), class index.
            boxes: B x (N_b, 4), centre x, centre y, width, height in 0..1 of the image.
        """
        counts = [len(label) for label in labels]
        padded = pad_sequence(list(labels), batch_first=True), pad_sequence(list(boxes), batch_first=True)
        unknown = [prediction for prediction in predictions if prediction.match is None]
        costs = [self.cost(prediction, *padded, num_classes) for prediction in unknown]
        matches, num_bad = [], 0
        for cost in to_host(costs):
            for image, count in enumerate(counts):
                cost[image, :, count:] = 0
            finite = cost.isfinite()
            num_bad += int((~finite).sum())
            matches.append(HungarianMatcher.assign(cost.where(finite, UNMATCHABLE).numpy(), counts, padded[0].device))
        found = iter(matches)
        return [next(found) if prediction.match is None else prediction.match for prediction in predictions], num_bad

    def cost(self, prediction: BoxPrediction, labels: Tensor, boxes: Tensor, num_classes: int) -> Tensor:
        """Return the cost of every pair (B, Q, N) in float32, for padded labels (B, N) and boxes (B, N, 4)."""
        with torch.autocast(boxes.device.type, enabled=False):
            classes = class_cost(prediction.class_logits.float(), num_classes)  # (B, Q, K)
            labels = torch.zeros_like(labels) if prediction.classless else labels
            chosen = classes.gather(2, labels[:, None].expand(-1, classes.shape[1], -1))  # (B, Q, N)
            found = prediction.boxes.float()
            distance = torch.cdist(found, boxes, p=1)
            overlap = generalized_iou(found[:, :, None], boxes[:, None])
            return self.class_weight * chosen + self.box_weight * distance - self.giou_weight * overlap


def class_cost(logits: Tensor, num_classes: int) -> Tensor:
    """Return what it costs a query to stand for an object of each class: (B, Q, K).

    With "no object" as last column, minus the probability (DETR); without it, the focal loss of an object minus that
    of none (Deformable DETR).
    """
    if logits.shape[-1] > num_classes:
        return -logits.softmax(-1)[..., :-1]
    probability = logits.sigmoid()
    positive = ALPHA * (1 - probability) ** GAMMA * F.softplus(-logits)
    negative = (1 - ALPHA) * probability**GAMMA * F.softplus(logits)
    return positive - negative


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of one type and any shapes in the memory of the CPU, by one copy."""
    if not tensors:
        return []
    flat = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
