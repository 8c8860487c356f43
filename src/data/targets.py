"""Batches: images, and the annotated segments of each image as a few integer maps.

Letters: B images, N segments of one image, L layers of its map, H x W pixels.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SEGMENTATIONS = ("panoptic", "instance", "semantic", "boxes")
OF_THINGS = ("instance", "boxes")  # what has no stuff


class Category(NamedTuple):
    """One class of a data set; its place in the list of categories is its class index."""

    id: int  # as the annotation files number it
    name: str
    isthing: bool
    color: tuple[int, int, int]


class Truth(NamedTuple):
    """The annotated segments of one image.

    Segments are stored in an integer map instead of a stack of masks: 0 is void, n is the n-th segment (from 1).
    Panoptic segments never overlap and need one layer; where objects overlap they lie in different layers. Objects
    that have a box only are rectangles in the map.
    """

    segments: Tensor  # (L, H, W) int32
    labels: Tensor  # (N,) int64, class index
    crowd: Tensor  # (N,) bool
    areas: Tensor  # (N,) float32, pixels, as annotated
    annotated_boxes: Tensor | None = None  # (N, 4) float32 as `boxes`, in fractions of pixels; None: not annotated

    def masks(self) -> Tensor:
        """Return one mask per segment: (N, H, W) bool."""
        ids = torch.arange(1, len(self.labels) + 1, device=self.segments.device)
        return (self.segments[None] == ids[:, None, None, None]).any(1)

    def boxes(self) -> Tensor:
        """Return left, top, right and bottom of each segment: (N, 4) float32, in pixels of the map.

        They are annotated, or else the extents of its pixels; a segment without pixels has a box of zeros.
        """
        if self.annotated_boxes is not None:
            return self.annotated_boxes
        return extents(self.segments, len(self.labels))

    def mirrored(self) -> "Truth":
        """Return the truth of the image with left and right exchanged."""
        boxes = self.annotated_boxes
        if boxes is not None:
            left, top, right, bottom = boxes.unbind(1)
            width = self.segments.shape[-1]
            boxes = torch.stack([width - right, top, width - left, bottom], 1)
        return self._replace(segments=self.segments.flip(-1), annotated_boxes=boxes)

    def select(self, keep: Tensor) -> "Truth":
        """Return the segments with `keep` (N,) bool set, renumbered from 1."""
        renumbered = torch.zeros(len(keep) + 1, dtype=torch.int32, device=keep.device)
        renumbered[1:][keep] = torch.arange(1, int(keep.sum()) + 1, dtype=torch.int32, device=keep.device)
        segments = lookup(renumbered, self.segments)
        boxes = None if self.annotated_boxes is None else self.annotated_boxes[keep]
        return Truth(segments, self.labels[keep], self.crowd[keep], self.areas[keep], boxes)

    def merge(self) -> "Truth":
        """Merge the segments of each class; a merged segment is a crowd if one of its parts was."""
        labels, new = torch.unique(self.labels, return_inverse=True)  # new: (N,) place of each segment's class
        renumbered = torch.cat([new.new_zeros(1), new + 1]).int()
        nothing = torch.zeros(len(labels), device=labels.device)
        crowd = nothing.index_add(0, new, self.crowd.float()) > 0
        areas = nothing.index_add(0, new, self.areas)
        return Truth(lookup(renumbered, self.segments), labels, crowd, areas)

    def for_task(self, categories: list[Category], segmentation: str) -> "Truth":
        """Return the training target: all segments, things only, or one segment per class; without crowds.

        Of boxes, it is the things that have one, with `annotated_boxes`.
        """
        if segmentation not in SEGMENTATIONS:
            raise ValueError(f"segmentation is {segmentation!r}, expected one of {', '.join(SEGMENTATIONS)}")
        keep = ~self.crowd
        if segmentation in OF_THINGS:
            keep &= torch.tensor([category.isthing for category in categories], device=keep.device)[self.labels]
        truth = self
        if segmentation == "boxes":
            truth = self._replace(annotated_boxes=self.boxes())
            keep &= (truth.boxes()[:, 2:] > truth.boxes()[:, :2]).all(1)
        truth = truth if keep.all() else truth.select(keep)
        return truth.merge() if segmentation == "semantic" else truth


class Sample(NamedTuple):
    """One image and its truth: at the image's size for training, at the original size for evaluation."""

    image: Tensor  # (3, h, w) uint8 RGB
    truth: Truth
    image_id: int
    name: str  # the file, or another name for people


class Batch(NamedTuple):
    """Samples side by side; images keep their own sizes, the model pads them."""

    images: list[Tensor]  # B x (3, h, w) uint8 RGB
    truths: list[Truth]
    image_ids: list[int]
    names: list[str]


def collate(samples: list[Sample]) -> Batch:
    """Collect samples, possibly none, into a batch without stacking tensors."""
    return Batch(*([getattr(sample, field) for sample in samples] for field in Sample._fields))


def extents(segments: Tensor, number: int) -> Tensor:
    """Return left, top, right and bottom of the pixels of each segment of a map (L, H, W): (number, 4) float32.

    A segment without pixels has zeros.
    """
    drawn, ends = segments > 0, torch.ones_like(segments, dtype=torch.bool)
    inner = segments[..., 1:-1]
    ends[..., 1:-1] = (inner != segments[..., :-2]) | (inner != segments[..., 2:])  # of runs along rows: few pixels
    layer, y, x = (drawn & ends).nonzero(as_tuple=True)
    place = (segments[layer, y, x] - 1).long()[:, None].expand(-1, 2)
    points = torch.stack([x, y], 1).float()
    high = points.new_zeros(number, 2).scatter_reduce(0, place, points + 1, "amax")
    low = points.new_full((number, 2), torch.inf).scatter_reduce(0, place, points, "amin").where(high > 0, 0)
    return torch.cat([low, high], 1)


def lookup(table: Tensor, map_: Tensor) -> Tensor:
    """Return table[map_], ten times faster than indexing for large maps."""
    return table.index_select(0, map_.reshape(-1)).view(map_.shape)


def pack(masks: np.ndarray) -> np.ndarray:
    """Pack masks (N, H, W) bool into layers (L, H, W) int32, each in the first layer where it overlaps none."""
    layers = np.zeros((1, *masks.shape[1:]), np.int32)
    for number, mask in enumerate(masks, 1):
        around = np.s_[span(mask.any(1)), span(mask.any(0))]  # all else is empty
        inside = mask[around]
        free = ~(layers[:, *around].astype(bool) & inside).any((1, 2))
        if not free.any():
            layers = np.concatenate([layers, np.zeros_like(layers[:1])])
            free = np.append(free, True)
        layers[free.argmax()][around][inside] = number
    return layers


def span(seen: np.ndarray) -> slice:
    """Return the slice from the first to the last place that is seen (N,) bool; an empty one if none is."""
    places = np.flatnonzero(seen)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0)
