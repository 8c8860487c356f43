"""Queries made of noisy truth, which train a decoder beside the queries that are matched (DINO, section 3.3).

Letters: B images, G groups, N objects of the image with the most, D = 2 G N noisy queries, Q matched ones, C channels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from src.models.box_prediction import Pairs
from src.models.boxes import boxes_in_image, to_centres, to_corners

NOWHERE = 0.5  # every number of the box of a query without object, which fills up an image with fewer objects


class Noised(NamedTuple):
    """Noisy queries, group by group: N that should find their object, then N that should find none."""

    content: Tensor  # (B, D, C)
    boxes: Tensor  # (B, D, 4)
    pairs: Pairs  # of the queries that should find their object
    group: Tensor  # (D,), the number of each query's group


class Denoising(nn.Module):
    """Contrastive denoising.

    Every object is repeated in each group, once near its box and once farther away: to be found, and to be rejected.

    Args:
        num_queries: pairs of such queries, over all groups, for the image with the most objects; at least one group.
        label_noise: half of it is the share of queries whose class is replaced by one at random.
        box_noise: how far corners move, in halves of a box's sides: up to this far near, up to twice as far otherwise.
    """

    def __init__(
        self, num_classes: int, dim: int, num_queries: int = 100, label_noise: float = 0.5, box_noise: float = 1.0
    ):
        super().__init__()
        self.num_queries, self.label_noise, self.box_noise = num_queries, label_noise, box_noise
        self.nothing = num_classes  # label of queries without object
        self.label_embed = nn.Embedding(num_classes + 1, dim)

    def forward(self, truths: Sequence[Any]) -> Noised:
        """Noisy queries of the objects of images: `.labels`, and `.boxes()` in pixels of `.segments` (..., h, w)."""
        counts = [len(truth.labels) for truth in truths]
        largest = max(1, *counts)  # an image without objects has queries too, so that every weight has a gradient
        num_groups = max(1, self.num_queries // largest)
        labels = filled([truth.labels for truth in truths], largest, self.nothing)  # (B, N)
        boxes = filled([boxes_in_image(truth) for truth in truths], largest, NOWHERE)  # (B, N, 4)
        copies = len(truths), num_groups, 2, largest
        labels = self.noisy_labels(labels[:, None, None].expand(copies)).flatten(1)
        boxes = self.noisy_boxes(boxes[:, None, None].expand(*copies, 4)).flatten(1, 3)
        group = torch.arange(num_groups, device=labels.device).repeat_interleave(2 * largest)
        return Noised(self.label_embed(labels), boxes, found(counts, num_groups, labels.device), group)

    def noisy_labels(self, labels: Tensor) -> Tensor:
        """Labels of which some are replaced by a class at random; those of no object stay."""
        replaced = torch.rand(labels.shape, device=labels.device) < self.label_noise / 2
        return torch.where(replaced & (labels != self.nothing), torch.randint_like(labels, self.nothing), labels)

    def noisy_boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (B, G, 2, N, 4) whose corners have moved, those of the second half of a group farther."""
        distance = torch.rand_like(boxes)
        distance[:, :, 1] += 1
        sign = torch.randint_like(boxes, 2) * 2 - 1
        half_sides = boxes[..., 2:].repeat(1, 1, 1, 1, 2) / 2
        corners = to_corners(boxes) + sign * distance * half_sides * self.box_noise
        return to_centres(corners.clamp(0, 1))


def filled(parts: Sequence[Tensor], length: int, value: float) -> Tensor:
    """Tensors of up to `length` entries as one, (B, length, ...), filled up with a value."""
    longest = parts[0].new_empty(length, *parts[0].shape[1:])
    return pad_sequence([*parts, longest], batch_first=True, padding_value=value)[:-1]


def found(counts: Sequence[int], num_groups: int, device: torch.device) -> Pairs:
    """The pairs of queries that should find their object, for numbers of objects per image."""
    largest = max(1, *counts)
    pairs = [
        (image, 2 * largest * group + place, place)
        for image, count in enumerate(counts)
        for group in range(num_groups)
        for place in range(count)
    ]
    return Pairs(*torch.tensor(pairs, dtype=torch.long, device=device).view(-1, 3).unbind(1))


def visible(group: Tensor, num_queries: int) -> Tensor:
    """Which queries a query may see, (1, D + Q, D + Q) bool, noisy ones (D,) by their groups before the Q matched ones.

    Noisy queries see their own group and the matched queries; matched queries see each other alone, as what they would
    learn from noisy truth is not there at inference.
    """
    matched = group.new_full((num_queries,), -1)
    groups = torch.cat([group, matched])
    return ((groups[:, None] == groups) | (groups == -1))[None]
