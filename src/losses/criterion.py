"""Mask2Former's losses: class, mask and dice for every decoder layer.

Letters: B images, Q queries, K classes, N segments of the image with the most, M matched pairs, P points, L layers of
the integer map.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from src.losses.base import Annotated, Criterion, average_over_processes
from src.losses.distillation import Distillation
from src.losses.matcher import HungarianMatcher
from src.losses.points import pixels, sample_maps, sample_segments, stack_segments, uncertain_points
from src.models.box_prediction import Pairs
from src.models.postprocess import Frame
from src.models.transformer_decoder import Prediction


class SetCriterion(Criterion):
    """Mask2Former's loss, the same for each decoder layer (section 3.3; constants of the published recipe).

    Args:
        no_object_weight: of the class "no object" in the cross-entropy.
        num_points: at which each matched mask is compared.
        oversample_ratio, importance_share: how those points are chosen, see `uncertain_points`.
    """

    class_weights: Tensor

    def __init__(
        self,
        num_classes: int,
        matcher: HungarianMatcher,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object_weight: float = 0.1,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_share: float = 0.75,
    ):
        super().__init__({"class": class_weight, "mask": mask_weight, "dice": dice_weight})
        self.matcher = matcher
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_share = importance_share
        class_weights = torch.ones(num_classes + 1)
        class_weights[-1] = no_object_weight
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(
        self, predictions: Sequence[Prediction], truths: Sequence[Annotated], size: Sequence[int]
    ) -> tuple[dict[str, Tensor], int]:
        """Weighted losses of class, mask and dice; see the base class. Maps are as large as the input, or smaller."""
        labels = [truth.labels for truth in truths]
        segments = stack_segments([truth.segments for truth in truths], size)
        matches, num_bad = self.matcher(predictions, labels, segments)
        num_masks = average_over_processes(sum(map(len, labels)), segments.device)
        padded = pad_sequence(list(labels), batch_first=True)  # (B, N)
        losses: dict[str, Tensor] = {}
        with torch.autocast(segments.device.type, enabled=False):
            for layer, (prediction, match) in enumerate(zip(predictions, matches, strict=True)):
                mask, dice = self.mask_losses(prediction.mask_logits, segments, match)
                terms = {
                    "class": self.class_loss(prediction.class_logits, padded, match),
                    "mask": mask / num_masks,
                    "dice": dice / num_masks,
                }
                losses |= {f"{name}/layer{layer}": self.weights[name] * term for name, term in terms.items()}
        return losses, num_bad

    def image_terms(self, prediction: Prediction, row: int, frame: Frame, truth: Annotated) -> dict[str, Tensor]:
        """Class, mask and dice of one image; see the base class.

        In training the points of the loss are random, and most lie where the prediction is least certain, so that two
        exits are compared at different ones. Here they are the pixels of the masks, which all exits share.
        """
        class_logits, mask_logits, labels = prediction.class_logits[row], prediction.mask_logits[row], truth.labels
        points, inside = pixels(mask_logits, frame)
        logits = sample_maps(mask_logits[None].float(), inside[None])  # (1, Q, P)
        numbers = torch.arange(1, len(labels) + 1, device=labels.device)
        masks = sample_segments(truth.segments[None], numbers.new_zeros(1), numbers[None], points[None])  # (1, N, P)
        cost = self.matcher.cost_at_points(class_logits[None], logits, masks, labels[None])  # (1, Q, N)
        match = HungarianMatcher.assign(cost.nan_to_num().cpu().numpy(), [len(labels)], labels.device)
        mask, dice = mask_terms(logits[0, match.query], masks[0, match.segment])
        return {
            "class": self.class_loss(class_logits[None], labels[None], match),
            "mask": mask.mean(),
            "dice": dice.mean(),
        }

    def distillation(self) -> Distillation:
        """Return the divergence of classes and masks, with the weights of this criterion."""
        return Distillation(self)

    def class_loss(self, class_logits: Tensor, labels: Tensor, match: Pairs) -> Tensor:
        """Cross-entropy over all queries for padded labels (B, N), with "no object" for queries without a match."""
        num_classes = class_logits.shape[-1] - 1
        target = torch.full(class_logits.shape[:2], num_classes, device=class_logits.device)  # (B, Q)
        target[match.image, match.query] = labels[match.image, match.segment]
        return F.cross_entropy(class_logits.float().transpose(1, 2), target, self.class_weights)

    def mask_losses(self, mask_logits: Tensor, segments: Tensor, match: Pairs) -> tuple[Tensor, Tensor]:
        """Cross-entropy and dice of the matched masks at their least certain points, summed over pairs."""
        logits = mask_logits[match.image, match.query].float()  # (M, h, w)
        with torch.no_grad():
            points = uncertain_points(logits, self.num_points, self.oversample_ratio, self.importance_share)
            truth = sample_segments(segments, match.image, match.segment[:, None] + 1, points)[:, 0]  # (M, P)
        logits = sample_maps(logits[:, None], points)[:, 0]  # (M, P)
        mask, dice = mask_terms(logits, truth)
        return mask.sum(), dice.sum()


def mask_terms(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and dice (M,) of masks with their truth, both at the same points (M, P)."""
    mask = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * truth).sum(1) + 1) / (probability.sum(1) + truth.sum(1) + 1)
    return mask, dice
