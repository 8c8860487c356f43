"""The loss of the final prediction for one image, as a measure of how good it is (ECO-M2F, step B).

In training the points of the loss are random, and most lie where the prediction is least certain, so that two exits are
compared at different ones. Here they are the pixels of the masks: nothing is random, and all exits share them.

Letters: Q queries, K classes, N segments, L layers of the integer map, P pixels of a mask inside the image.
"""

from math import ceil, isfinite

import torch
from torch import Tensor

from src.losses.criterion import SetCriterion, mask_terms
from src.losses.matcher import HungarianMatcher
from src.losses.points import sample_maps, sample_segments
from src.models.position import reference_points
from src.models.postprocess import Frame


def image_loss(
    criterion: SetCriterion,
    class_logits: Tensor,  # (Q, K + 1)
    mask_logits: Tensor,  # (Q, h, w) of the padded batch
    frame: Frame,
    segments: Tensor,  # (L, H, W) n where the n-th segment lies, at the original size
    labels: Tensor,  # (N,) class index, at least one
) -> float:
    """Return the criterion's loss of one image after matching: class, mask and dice with their weights.

    Mask and dice are means over the matched pairs, so that images with few and with many segments compare. Raises
    FloatingPointError for a loss that is not finite.
    """
    with torch.autocast(mask_logits.device.type, enabled=False):
        points, inside = pixels(mask_logits, frame)
        logits = sample_maps(mask_logits[None].float(), inside[None])  # (1, Q, P)
        numbers = torch.arange(1, len(labels) + 1, device=labels.device)
        truth = sample_segments(segments[None], numbers.new_zeros(1), numbers[None], points[None])  # (1, N, P)
        cost = criterion.matcher.cost_at_points(class_logits[None], logits, truth, labels[None])  # (1, Q, N)
        match = HungarianMatcher.assign(cost.nan_to_num().cpu().numpy(), [len(labels)], labels.device)
        mask, dice = mask_terms(logits[0, match.query], truth[0, match.segment])
        terms = {
            "class": criterion.class_loss(class_logits[None], labels[None], match),
            "mask": mask.mean(),
            "dice": dice.mean(),
        }
        loss = float(sum(criterion.weights[name] * term for name, term in terms.items()))
    if not isfinite(loss):
        raise FloatingPointError(
            f"the loss of an image is {loss}, expected a finite number; try trainer.precision=32-true"
        )
    return loss


def pixels(mask_logits: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Return centres of the mask's pixels inside the image, (P, 2) in 0..1 of the image and of the padded batch."""
    shares = [size / padded for size, padded in zip(frame.resized, frame.padded, strict=True)]
    height, width = (ceil(share * side) for share, side in zip(shares, mask_logits.shape[-2:], strict=True))
    points = reference_points(height, width, mask_logits.device)
    return points, points * points.new_tensor(shares[::-1])
