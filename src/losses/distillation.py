"""Self-distillation: the predictions of a deep exit as soft targets of those of shallower exits.

The exits share the decoder and its learnt queries, so query q of one exit stands for the same thing as query q of
another, and nothing has to be matched.

Letters: B images, Q queries, K classes, P points.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from src.losses.points import sample_maps
from src.models.transformer_decoder import Prediction

if TYPE_CHECKING:
    from src.losses.criterion import SetCriterion


class Distillation:
    """Divergence of a student's predictions from a teacher's, for every decoder layer, with the criterion's weights.

    Both parts are Kullback-Leibler divergences, 0 if student and teacher agree; that of masks is the cross-entropy
    with the teacher's probabilities minus their own entropy, a constant for the student.

    Args:
        criterion: its class and mask weights, its class weights and its number of points are used.
    """

    def __init__(self, criterion: "SetCriterion"):
        self.criterion = criterion

    def __call__(self, students: Sequence[Prediction], teachers: Sequence[Prediction]) -> dict[str, Tensor]:
        """Weighted losses {"distil_class/layer0": ..., "distil_mask/layer0": ...} to sum up; teachers get no gradient.

        Args:
            students, teachers: the predictions of two exits, one per decoder layer.
        """
        losses: dict[str, Tensor] = {}
        for layer, (student, teacher) in enumerate(zip(students, teachers, strict=True)):
            device = student.class_logits.device
            with torch.autocast(device.type, enabled=False):
                log_p = teacher.class_logits.detach().float().log_softmax(-1)  # (B, Q, K + 1)
                terms = {
                    "class": self.class_loss(student.class_logits, log_p),
                    "mask": self.mask_loss(student.mask_logits, teacher.mask_logits, 1 - log_p[..., -1].exp()),
                }
            losses |= {
                f"distil_{name}/layer{layer}": self.criterion.weights[name] * term for name, term in terms.items()
            }
        return losses

    def class_loss(self, class_logits: Tensor, log_p: Tensor) -> Tensor:
        """Mean divergence over queries from the teacher's log-probabilities, logits and these (B, Q, K + 1).

        A query has the weight that the criterion gives its class, in expectation over the teacher's classes.
        """
        log_q = class_logits.float().log_softmax(-1)
        divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)  # (B, Q)
        weight = log_p.exp() @ self.criterion.class_weights
        return (weight * divergence).sum() / weight.sum()

    def mask_loss(self, mask_logits: Tensor, teacher_logits: Tensor, is_object: Tensor) -> Tensor:
        """Mean divergence of masks (B, Q, h, w) at random points, over queries weighted by `is_object` (B, Q) in 0..1.

        Points are uniform, shared by the queries of an image, as those of the matcher.
        """
        points = torch.rand(len(mask_logits), self.criterion.num_points, 2, device=mask_logits.device)
        student = sample_maps(mask_logits.float(), points)  # (B, Q, P)
        teacher = sample_maps(teacher_logits.detach().float(), points)
        divergence = bernoulli_divergence(teacher, student).mean(-1)  # (B, Q)
        return (is_object * divergence).sum() / is_object.sum().clamp(min=1)


def bernoulli_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student's probabilities from the teacher's, elementwise from their logits."""
    probability = teacher.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(teacher, probability, reduction="none")
    return F.binary_cross_entropy_with_logits(student, probability, reduction="none") - entropy
