"""Predictions of the decoder to segments of the original image, for one image at a time (Mask2Former, inference).

Letters: Q queries, K classes, h x w the pixels of the mask logits, H x W those of the original image.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.models.transformer_decoder import Prediction

CHUNK = 16  # masks at full size at the same time
PIXELS = 2**25  # limit on all their pixels, where the size of chunks does not change results
HELD = 2**28  # limit on the pixels of all masks of an image that are held at full size: a gigabyte
CACHED = 2**20  # sums of masks by class that a CPU computes at the same time, so that they stay in its cache
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

    @staticmethod
    def enlarged(prediction: Prediction, image: int, frame: Frame) -> tuple[Prediction, int, Frame]:
        """The same image with masks of its original size, so that several kinds of segmentation resize them only once.

        Returns its arguments if that would take too much memory.
        """
        masks, size = prediction.mask_logits[image], frame.original
        if len(masks) * prod(size) > HELD:
            return prediction, image, frame
        full = torch.empty(len(masks), *size, device=masks.device)
        for some in chunks(len(masks), frame):
            full[some] = frame.undo(masks[some])
        return Prediction(prediction.class_logits[image][None], full[None]), 0, Frame(size, size, size)

    def panoptic(self, prediction: Prediction, image: int, frame: Frame) -> Panoptic:
        """Each pixel to the query of highest score x probability; queries that lose most of their mask are dropped."""
        num_classes = prediction.class_logits.shape[-1] - 1
        scores, labels = prediction.class_logits[image].float().softmax(-1).max(-1)  # (Q,)
        kept = (labels != num_classes) & (scores > self.object_threshold)
        scores, labels = scores[kept], labels[kept]
        if not len(scores):
            return Panoptic(torch.zeros(*frame.original, dtype=torch.int32, device=labels.device), labels, scores)
        codes, full = share_out(frame, prediction.mask_logits[image][kept], scores)
        outside, final = torch.bincount(codes.flatten(), minlength=2 * len(scores)).view(-1, 2).unbind(1)  # (Q,) pixels
        wins = (final > 0) & ((outside + final) / full >= self.overlap_threshold)
        number, segments = 0, []  # number of the last segment; the query of each
        stuff: dict[int, int] = {}  # number of the segment that holds a stuff class
        table = [0] * 2 * len(scores)  # number of the segment by code
        for query, (win, label) in enumerate(zip(wins.tolist(), labels.tolist(), strict=True)):
            if not win:
                continue
            if label not in stuff:
                number += 1
                segments.append(query)
                if not self.isthing[label]:
                    stuff[label] = number
            table[2 * query + 1] = stuff.get(label, number)
        # one look-up of all pixels: marking the pixels of each segment reads the whole image once for each of them
        ids = torch.tensor(table, dtype=torch.int32, device=codes.device).index_select(0, codes.flatten())
        return Panoptic(ids.view_as(codes), labels[segments], scores[segments])

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
            # one mask at a time, as in `share_out`
            for place, logits in enumerate(frame.undo(prediction.mask_logits[image][unique[some]]), some.start):
                inside = torch.gt(logits, 0, out=masks[place])
                confidence[place] = logits.sigmoid().mul_(inside).sum() / (count(inside) + 1e-6)
        return Instances(scores * confidence[inverse], labels, masks[inverse])

    def semantic(self, prediction: Prediction, image: int, frame: Frame, resize_last: bool = False) -> Tensor:
        """Class index of each pixel (H, W); `resize_last` sums in the padded size, as published semantic models do."""
        class_scores = prediction.class_logits[image].float().softmax(-1)[:, :-1]  # (Q, K)
        mask_logits, (height, width) = prediction.mask_logits[image], frame.original
        if resize_last and tuple(frame.resized) != tuple(frame.original):
            return sum_then_resize(class_scores, mask_logits, frame)
        rows = max(HELD // (len(mask_logits) * width), 1)  # at a time; all of them unless the image is large
        bands = (
            [frame.undo(some)[:, top : top + rows].contiguous() for some in mask_logits.split(CHUNK)]
            for top in range(0, height, rows)
        )
        return torch.cat([strongest_class(class_scores, band) for band in bands])


def strongest_class(class_scores: Tensor, mask_logits: Sequence[Tensor]) -> Tensor:
    """The class whose sum over queries of class score (Q, K) x probability is largest at each pixel (H, W).

    `mask_logits` come in chunks of (CHUNK, H, W). The class is that of the largest of `sum_masks`; a few thousand
    pixels at a time are three times as fast, because a CPU keeps their sums in its cache.
    """
    winner = torch.empty(mask_logits[0].shape[1:], dtype=torch.int64, device=class_scores.device)
    pixels = max((SUMS if class_scores.is_cuda else CACHED) // class_scores.shape[1], 1)
    for first in range(0, winner.numel(), pixels):
        probability = [logits.flatten(1)[:, first : first + pixels].sigmoid() for logits in mask_logits]
        total = add_up(class_scores, probability)
        winner.view(-1)[first : first + pixels] = total.T.contiguous().argmax(1)  # faster along memory than across
    return winner


def sum_then_resize(class_scores: Tensor, mask_logits: Tensor, frame: Frame) -> Tensor:
    """As `strongest_class`, where the sums of the image as it entered the model are resized to the original."""
    best = class_scores.new_full((*frame.original,), -torch.inf)
    winner = torch.zeros_like(best, dtype=torch.int64)
    classes = max(SUMS // prod(frame.resized), 1)
    for first in range(0, class_scores.shape[1], classes):
        total = sum_masks(class_scores[:, first : first + classes], mask_logits, frame._replace(original=frame.resized))
        strongest, label = resize(total, frame.original).max(0)
        winner = torch.where(strongest > best, label + first, winner)  # the first of equals
        best = torch.maximum(best, strongest)
    return winner


def sum_masks(class_scores: Tensor, mask_logits: Tensor, frame: Frame) -> Tensor:
    """Class score (Q, K) x probability, summed over queries: (K, H, W)."""
    probability = (frame.undo(logits).sigmoid_().flatten(1) for logits in mask_logits.split(CHUNK))
    return add_up(class_scores, probability).view(-1, *frame.original)


def add_up(class_scores: Tensor, probability: Iterable[Tensor]) -> Tensor:
    """Class score (Q, K) x probability, given in chunks (CHUNK, pixels), summed over queries: (K, pixels)."""
    total = None
    for scores, some in zip(class_scores.split(CHUNK), probability, strict=True):
        total = torch.zeros(class_scores.shape[1], some.shape[1], device=some.device) if total is None else total
        total.addmm_(scores.T, some)  # in place: the product of a chunk needs no memory of its own
    assert total is not None
    return total


def chunks(number: int, frame: Frame) -> Iterator[slice]:
    """Slices of a number of masks, with fewer masks in each if the image is large."""
    size = max(min(CHUNK, PIXELS // prod(frame.original)), 1)
    return (slice(first, first + size) for first in range(0, number, size))


def share_out(frame: Frame, mask_logits: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Which query q has the highest score x probability at each pixel, and the pixels of each query's mask (Q,).

    The first is a code (H, W) int32: 2 q + 1 where that query's probability is at least 0.5, else 2 q.
    """
    best = torch.full((*frame.original,), -torch.inf, device=scores.device)
    codes = torch.zeros_like(best, dtype=torch.int32)
    full = []
    for some in chunks(len(scores), frame):
        # one mask at a time stays in a CPU's cache: sixteen together take twice as long
        for query, logits in enumerate(frame.undo(mask_logits[some]), some.start):
            probability = logits.sigmoid()
            inside = probability >= 0.5
            full.append(count(inside))
            value = probability.mul_(scores[query])
            codes = torch.where(value > best, inside.int().add_(2 * query), codes)
            best = torch.maximum(best, value)
    return codes, torch.stack(full)


def count(masks: Tensor) -> Tensor:
    """Pixels (...,) of masks (..., H, W) bool; in 32 bits, where torch adds bools twenty times as fast as in 64."""
    return masks.sum((-2, -1), dtype=torch.int32)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (M, h, w) bilinearly to (M, *size) float32."""
    maps = maps.float()
    if not len(maps):  # interpolate does not accept it
        return maps.new_zeros(0, *size)
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps[None], tuple(size), mode="bilinear", align_corners=False)[0]
