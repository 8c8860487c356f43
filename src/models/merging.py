"""Merges the predictions for several views of an image (test-time augmentation).

Queries of two views do not stand for the same objects, so they are first matched by mask and class. The score of an
object that only some views show is scaled by their share.

Letters: Q queries, K classes, h x w the pixels of the common masks.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.postprocess import Frame
from src.models.transformer_decoder import Prediction

LEAST_OVERLAP = 0.5  # IoU of two masks of one object, as for panoptic quality
STRIDE = 4  # of masks


class View(NamedTuple):
    """The prediction for a view of an image."""

    prediction: Any  # of the image alone, a batch of one; of masks (`Prediction`) if it is to be merged
    padded: Sequence[int]  # (height, width) of that
    resized: Sequence[int]  # of the view
    mirrored: bool  # left and right exchanged


class Objects(NamedTuple):
    """Objects in some views; scores and masks are summed over the views that show them."""

    scores: Tensor  # (Q, K) class probabilities
    mask_logits: Tensor  # (Q, h, w)
    seen: Tensor  # (Q,) number of views


def alone(prediction: Any, place: int) -> Any:
    """One image of a batch of predictions, as a batch of one."""
    fields = prediction._asdict().items()
    return prediction._replace(**{name: x[place : place + 1] for name, x in fields if isinstance(x, Tensor)})


def merge_views(pairs: Sequence[Sequence[View]], original: Sequence[int]) -> tuple[Any, Frame]:
    """One prediction (a batch of one) and its frame, from the views at each scale, with masks of the first view's size.

    A single view stays as it is. The views of one scale are merged first, so that a mirrored pair is treated alike.
    """
    first = pairs[0][0]
    if sum(map(len, pairs)) == 1:
        return first.prediction, Frame(first.padded, first.resized, original)
    size = [-(-side // STRIDE) for side in first.resized]
    found = reduce(merge, (reduce(merge, (objects(view, size) for view in views)) for views in pairs))
    scores = found.scores / sum(map(len, pairs))
    nothing = (1 - scores.sum(1, keepdim=True)).clamp(min=0)
    masks = found.mask_logits / found.seen[:, None, None]
    frame = Frame(first.resized, first.resized, original)
    return Prediction(torch.cat([scores, nothing], 1).log()[None], masks[None]), frame


def objects(view: View, size: Sequence[int]) -> Objects:
    """The objects in one view, with masks (h, w) of the whole image, neither mirrored nor padded."""
    (class_logits,), (mask_logits,) = view.prediction
    device = mask_logits.device
    # where in the image each pixel of that size lies, from 0 to 1, and where in the padded batch, from -1 to 1
    rows, columns = ((torch.arange(side, device=device) + 0.5) / side for side in size)
    if view.mirrored:
        columns = 1 - columns
    y, x = (
        2 * share * resized / padded - 1
        for share, resized, padded in zip((rows, columns), view.resized, view.padded, strict=True)
    )
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)  # (h, w, 2)
    logits = mask_logits[None].float()
    masks = F.grid_sample(logits, grid[None], padding_mode="border", align_corners=False)[0]
    scores = class_logits.float().softmax(-1)[:, :-1]
    return Objects(scores, masks, scores.new_ones(len(scores)))


def merge(some: Objects, others: Objects) -> Objects:
    """The objects of both, with matched pairs as one object."""
    mine, yours = match(some, others)
    scores, masks, seen = (field.clone() for field in some)
    for field, more in zip((scores, masks, seen), others, strict=True):
        field[mine] += more[yours]
    unmatched = torch.ones(len(others.seen), dtype=torch.bool, device=seen.device)
    unmatched[yours] = False
    return Objects(*(torch.cat([a, b[unmatched]]) for a, b in zip((scores, masks, seen), others, strict=True)))


def match(some: Objects, others: Objects) -> tuple[Tensor, Tensor]:
    """Pairs of objects that are each other's best by IoU x class agreement and overlap enough: indices, (M,) each."""
    inside, beside = ((one.mask_logits > 0).flatten(1).float() for one in (some, others))
    common = inside @ beside.T
    overlap = common / (inside.sum(1)[:, None] + beside.sum(1) - common).clamp(min=1)
    agreement = (some.scores / some.seen[:, None]) @ (others.scores / others.seen[:, None]).T
    likeness = overlap * agreement * (overlap >= LEAST_OVERLAP)
    best, back = likeness.argmax(1), likeness.argmax(0)
    mine = torch.arange(len(best), device=best.device)
    mutual = (back[best] == mine) & (likeness[mine, best] > 0)
    return mine[mutual], best[mutual]
