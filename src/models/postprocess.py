"""Predictions of the decoder to segments of the original image, for one image at a time (Mask2Former, inference).

Letters: Q queries, K classes, h x w the pixels of the mask logits, H x W those of the original image.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.transformer_decoder import Prediction

CHUNK = 16  # masks at full size at the same time
PIXELS = 2**25  # limit on all their pixels, where the size of chunks does not change results
SUMS = 2**27  # limit on the sums of masks by class that are held at the same time; many classes would take gigabytes


class Frame(NamedTuple):
    """How an image lies in the batch: (height, width) of the padded batch, of the resized image, and its own."""

    padded: Sequence[int]
    resized: Sequence[int]
    original: Sequence[int]

    def undo(self, maps: Tensor) -> Tensor:
        """Maps (M, h, w) of the padded batch to (M, H, W) of the original image."""
        maps = resize(maps, self.padded)[:, : self.resized[0], : self.resized[1]]
        return resize(maps, self.original)


class Panoptic(NamedTuple):
    """Segments that do not overlap; pixels may stay unlabelled."""

    ids: Tensor  # (H, W) int32, 0 unlabelled, n the n-th segment
    labels: Tensor  # (P,) class index
    scores: Tensor  # (P,)


class Instances(NamedTuple):
    """Scored masks, which may overlap."""

    scores: Tensor  # (M,)
    labels: Tensor  # (M,) class index
    masks: Tensor  # (M, H, W) bool


class Postprocess:
    """Panoptic, instance and semantic segmentation from the same logits.

    Args:
        isthing: of each class.
        object_threshold: least class score of a query that may win pixels.
        overlap_threshold: least share of its own mask that a segment must win.
        num_instances: number of (query, class) pairs, the best ones, that become instances.
    """

    def __init__(
        self,
        isthing: Sequence[bool],
        object_threshold: float = 0.8,
        overlap_threshold: float = 0.8,
        num_instances: int = 100,
    ):
        self.isthing = torch.tensor(isthing)
        self.object_threshold = object_threshold
        self.overlap_threshold = overlap_threshold
        self.num_instances = num_instances

    def panoptic(self, prediction: Prediction, image: int, frame: Frame) -> Panoptic:
        """Each pixel to the query of highest score x probability; queries that lose most of their mask are dropped."""
        num_classes = prediction.class_logits.shape[-1] - 1
        scores, labels = prediction.class_logits[image].float().softmax(-1).max(-1)  # (Q,)
        kept = (labels != num_classes) & (scores > self.object_threshold)
        scores, labels = scores[kept], labels[kept]
        ids = torch.zeros(*frame.original, dtype=torch.int32, device=labels.device)
        if not len(scores):
            return Panoptic(ids, labels, scores)
        inside, owner = share_out(frame, prediction.mask_logits[image][kept], scores)
        number, segments = 0, []  # number of the last segment; class and score of each
        stuff: dict[int, int] = {}  # number of the segment that holds a stuff class
        for query, (label, score) in enumerate(zip(labels.tolist(), scores.tolist(), strict=True)):
            won = owner == query
            final = won & inside[query]
            full = inside[query].sum()
            if not final.any() or won.sum() / full < self.overlap_threshold:
                continue
            if label not in stuff:
                number += 1
                segments.append((label, score))
                if not self.isthing[label]:
                    stuff[label] = number
            ids[final] = stuff.get(label, number)
        return Panoptic(ids, labels.new_tensor([s[0] for s in segments]), scores.new_tensor([s[1] for s in segments]))

    def instances(self, prediction: Prediction, image: int, frame: Frame) -> Instances:
        """The best (query, class) pairs, things only, scored by class score x mean probability inside the mask."""
        class_scores = prediction.class_logits[image].float().softmax(-1)[:, :-1]  # (Q, K)
        num_classes = class_scores.shape[1]
        scores, pairs = class_scores.flatten().topk(min(self.num_instances, class_scores.numel()), sorted=False)
        queries, labels = pairs // num_classes, pairs % num_classes
        things = self.isthing.to(labels.device)[labels]
        scores, queries, labels = scores[things], queries[things], labels[things]
        unique, inverse = queries.unique(return_inverse=True)
        masks = torch.empty(len(unique), *frame.original, dtype=torch.bool, device=scores.device)
        confidence = scores.new_empty(len(unique))
        for some in chunks(len(unique), frame):
            logits = frame.undo(prediction.mask_logits[image][unique[some]])
            inside = logits > 0
            masks[some] = inside
            confidence[some] = (logits.sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
        return Instances(scores * confidence[inverse], labels, masks[inverse])

    def semantic(self, prediction: Prediction, image: int, frame: Frame, resize_last: bool = False) -> Tensor:
        """Class index of each pixel (H, W); `resize_last` sums in the padded size, as published semantic models do."""
        class_scores = prediction.class_logits[image].float().softmax(-1)[:, :-1]  # (Q, K)
        place = frame._replace(original=frame.resized) if resize_last else frame
        best = class_scores.new_full((*frame.original,), -torch.inf)
        winner = torch.zeros_like(best, dtype=torch.int64)
        classes = max(SUMS // prod(place.original), 1)
        for first in range(0, class_scores.shape[1], classes):
            total = sum_masks(class_scores[:, first : first + classes], prediction.mask_logits[image], place)
            strongest, label = resize(total, frame.original).max(0)
            winner = torch.where(strongest > best, label + first, winner)  # the first of equals
            best = torch.maximum(best, strongest)
        return winner


def sum_masks(class_scores: Tensor, mask_logits: Tensor, frame: Frame) -> Tensor:
    """Class score (Q, K) x probability, summed over queries: (K, H, W)."""
    total = torch.zeros(class_scores.shape[1], *frame.original, device=class_scores.device)
    for scores, logits in zip(class_scores.split(CHUNK), mask_logits.split(CHUNK), strict=True):
        total += torch.einsum("qk,qhw->khw", scores, frame.undo(logits).sigmoid())
    return total


def chunks(number: int, frame: Frame) -> Iterator[slice]:
    """Slices of a number of masks, with fewer masks in each if the image is large."""
    size = max(min(CHUNK, PIXELS // prod(frame.original)), 1)
    return (slice(first, first + size) for first in range(0, number, size))


def share_out(frame: Frame, mask_logits: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Where each query's probability is at least 0.5 (Q, H, W) bool, and the query that wins each pixel (H, W)."""
    inside = torch.empty(len(scores), *frame.original, dtype=torch.bool, device=scores.device)
    best, owner = None, None
    for some in chunks(len(scores), frame):
        probability = frame.undo(mask_logits[some]).sigmoid()
        inside[some] = probability >= 0.5
        strongest, query = (scores[some, None, None] * probability).max(0)
        if best is None or owner is None:
            best, owner = strongest, query
        else:
            owner = torch.where(strongest > best, query + some.start, owner)
            best = torch.maximum(best, strongest)
    assert owner is not None
    return inside, owner


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (M, h, w) bilinearly to (M, *size) float32."""
    maps = maps.float()
    if not len(maps):  # interpolate does not accept it
        return maps.new_zeros(0, *size)
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps[None], tuple(size), mode="bilinear", align_corners=False)[0]
