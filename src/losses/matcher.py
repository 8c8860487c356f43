"""Matches queries to segments, one to one, for each image and decoder layer.

Letters: B images, Q queries, K classes, N segments of the image with the most, P points, L layers of the integer map.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from src.losses.points import sample_maps, sample_segments
from src.models.box_prediction import Pairs
from src.models.transformer_decoder import Prediction

UNMATCHABLE = 1e6  # replaces costs that are not finite, so that an assignment exists


class HungarianMatcher:
    """Matches by class probability, and by cross-entropy and dice at random points (Mask2Former, section 3.3)."""

    def __init__(
        self, class_weight: float = 2.0, mask_weight: float = 5.0, dice_weight: float = 5.0, num_points: int = 12544
    ):
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.num_points = num_points

    @torch.no_grad()
    def __call__(
        self, predictions: Sequence[Prediction], labels: Sequence[Tensor], segments: Tensor
    ) -> tuple[list[Pairs], int]:
        """One match per prediction, and how many costs were not finite.

        Args:
            predictions: one per decoder layer.
            labels: B x (N_b,), class index.
            segments: (B, L, H, W), n where the n-th segment of an image lies.
        """
        padded = pad_sequence(list(labels), batch_first=True)  # (B, N)
        costs = torch.stack([self.cost(prediction, padded, segments) for prediction in predictions])
        counts = [len(label) for label in labels]
        costs = costs.cpu()  # the one copy to the host
        for image, count in enumerate(counts):
            costs[:, image, :, count:] = 0
        finite = costs.isfinite()
        tables = costs.where(finite, UNMATCHABLE).numpy()
        return [self.assign(table, counts, segments.device) for table in tables], int((~finite).sum())

    def cost(self, prediction: Prediction, labels: Tensor, segments: Tensor) -> Tensor:
        """Cost of every pair (B, Q, N) in float32, for padded labels (B, N)."""
        num_images, num_segments = labels.shape
        device = labels.device
        with torch.autocast(device.type, enabled=False):
            points = torch.rand(num_images, self.num_points, 2, device=device)
            logits = sample_maps(prediction.mask_logits.float(), points)  # (B, Q, P)
            numbers = torch.arange(1, num_segments + 1, device=device).expand(num_images, -1)
            truth = sample_segments(segments, torch.arange(num_images, device=device), numbers, points)  # (B, N, P)
            return self.cost_at_points(prediction.class_logits, logits, truth, labels)

    def cost_at_points(self, class_logits: Tensor, logits: Tensor, truth: Tensor, labels: Tensor) -> Tensor:
        """Cost of every pair (B, Q, N), from mask logits (B, Q, P) and truth masks (B, N, P) at the same points."""
        overlap = logits @ truth.mT  # (B, Q, N)
        # cross-entropy of logit x and truth t: softplus(x) - x t
        mask = (F.softplus(logits).sum(-1, keepdim=True) - overlap) / logits.shape[-1]
        probability = logits.sigmoid()
        both = probability.sum(-1, keepdim=True) + truth.sum(-1)[:, None]
        dice = 1 - (2 * (probability @ truth.mT) + 1) / (both + 1)
        classes = class_logits.float().softmax(-1)
        chosen = classes.gather(2, labels[:, None].expand(-1, classes.shape[1], -1))  # (B, Q, N)
        return self.mask_weight * mask + self.dice_weight * dice - self.class_weight * chosen

    @staticmethod
    def assign(table: np.ndarray, counts: Sequence[int], device: torch.device) -> Pairs:
        """The cheapest assignment for costs (B, Q, N), of which each image uses its first `count` columns."""
        pairs = [
            (image, query, segment)
            for image, count in enumerate(counts)
            for query, segment in zip(*linear_sum_assignment(table[image, :, :count]), strict=True)
        ]
        return Pairs(*torch.tensor(pairs, dtype=torch.long, device=device).view(-1, 3).unbind(1))
