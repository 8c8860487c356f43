"""Losses of detectors: class, L1 distance and generalised IoU of boxes for every decoder layer.

Letters: B images, Q queries, K classes, N objects of the image with the most, M matched pairs.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import sigmoid_focal_loss

from src.losses.base import Annotated, Criterion, average_over_processes
from src.losses.box_matcher import ALPHA, GAMMA, BoxMatcher
from src.losses.boxes import generalized_iou
from src.models.box_prediction import BoxPrediction, Pairs
from src.models.boxes import boxes_in_image
from src.models.postprocess import Frame


class BoxCriterion(Criterion):
    """The loss of DETR (section 3.1, appendix A.2), and of Deformable DETR and DINO, the same for each prediction.

    How classes are compared follows from the prediction: cross-entropy if it has a column "no object", else the focal
    loss. Weights of the three papers: class 1 (DETR) or 2 and 1 (Deformable DETR, DINO), box 5, generalised IoU 2.

    Args:
        no_object_weight: of the class "no object" in the cross-entropy.
    """

    class_weights: Tensor

    def __init__(
        self,
        num_classes: int,
        matcher: BoxMatcher,
        class_weight: float = 1.0,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        no_object_weight: float = 0.1,
    ):
        super().__init__({"class": class_weight, "box": box_weight, "giou": giou_weight})
        self.num_classes = num_classes
        self.matcher = matcher
        class_weights = torch.ones(num_classes + 1)
        class_weights[-1] = no_object_weight
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(
        self, predictions: Sequence[BoxPrediction], truths: Sequence[Annotated], size: Sequence[int]
    ) -> tuple[dict[str, Tensor], int]:
        """Weighted losses of class, box and giou; see the base class. Boxes are relative to images, not to the batch.

        Sums over boxes are divided by the mean number of annotated boxes per process; those of denoising queries, which
        come in groups, by as many times that number as there are groups (DINO).
        """
        labels, boxes = [truth.labels for truth in truths], [boxes_in_image(truth) for truth in truths]
        matches, num_bad = self.matcher(predictions, labels, boxes, self.num_classes)
        count = sum(map(len, labels))
        num_boxes = average_over_processes(count, predictions[0].boxes.device)
        padded = pad_sequence(labels, batch_first=True), pad_sequence(boxes, batch_first=True)
        losses: dict[str, Tensor] = {}
        for layer, (prediction, match) in enumerate(zip(predictions, matches, strict=True)):
            num_groups = 1 if prediction.match is None else max(len(match.image) / max(count, 1), 1)
            terms = self.terms(prediction, *padded, match, num_boxes * num_groups)
            losses |= {f"{name}/layer{layer}": self.weights[name] * term for name, term in terms.items()}
        return losses, num_bad

    def terms(
        self, prediction: BoxPrediction, labels: Tensor, boxes: Tensor, match: Pairs, num_boxes: Tensor
    ) -> dict[str, Tensor]:
        """Losses of one prediction, for padded labels (B, N) and boxes (B, N, 4)."""
        with torch.autocast(boxes.device.type, enabled=False):
            found = prediction.boxes[match.image, match.query].float()  # (M, 4)
            truth = boxes[match.image, match.segment]
            label = labels[match.image, match.segment]  # (M,)
            label = torch.zeros_like(label) if prediction.classless else label
            return {
                "class": self.class_loss(prediction.class_logits.float(), label, match, num_boxes),
                "box": (found - truth).abs().sum() / num_boxes,
                "giou": (1 - generalized_iou(found, truth)).sum() / num_boxes,
            }

    def class_loss(self, class_logits: Tensor, label: Tensor, match: Pairs, num_boxes: Tensor) -> Tensor:
        """Loss of the classes of all queries, with the labels (M,) of matched ones; the others have no object.

        The cross-entropy is a mean over queries, and the focal loss a sum that is divided by the number of boxes.
        """
        if class_logits.shape[-1] > self.num_classes:
            target = torch.full(class_logits.shape[:2], self.num_classes, device=class_logits.device)  # (B, Q)
            target[match.image, match.query] = label
            return F.cross_entropy(class_logits.transpose(1, 2), target, self.class_weights)
        present = torch.zeros_like(class_logits)  # (B, Q, K)
        present[match.image, match.query, label] = 1
        return sigmoid_focal_loss(class_logits, present, ALPHA, GAMMA, reduction="sum") / num_boxes

    def image_terms(self, prediction: BoxPrediction, row: int, frame: Frame, truth: Annotated) -> dict[str, Tensor]:
        """Class, box and giou of one image, over its objects; see the base class."""
        one = BoxPrediction(prediction.class_logits[row][None], prediction.boxes[row][None])
        labels, boxes = truth.labels, boxes_in_image(truth)
        (match,), _ = self.matcher([one], [labels], [boxes], self.num_classes)
        return self.terms(one, labels[None], boxes[None], match, boxes.new_tensor(float(len(labels))))
