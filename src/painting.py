"""Segments painted over images, and panels put side by side.

Shapes: H x W are the pixels of an image.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

HEIGHT = 320  # of a panel, pixels
MARGIN, TITLE = 8, 22
COLUMNS = 4
LEAST_SCORE = 0.5  # of instances that are drawn
BAND = 256  # rows that are blended at a time, which saves memory
ROOM = 900  # pixels that a segment needs in a panel to be named


class Segments(NamedTuple):
    """A map of segments and their classes."""

    ids: np.ndarray  # (H, W) int32; 0: no segment
    labels: list[int]  # class index of segment 1, 2 and so on

    def resized(self, size: tuple[int, int]) -> "Segments":
        """Return the segments at a size of (width, height)."""
        ids = Image.fromarray(self.ids.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
        return Segments(np.asarray(ids), self.labels)

    def classes(self) -> np.ndarray:
        """Return class index + 1 of every pixel, (H, W) int32; 0 for no segment."""
        return np.array([0, *(label + 1 for label in self.labels)], np.int32)[self.ids]


def true_segments(truth: Any) -> Segments:
    """Return the annotated segments, the first layer on top."""
    ids = truth.segments[0]
    for layer in truth.segments[1:]:
        ids = ids.where(ids > 0, layer)
    return Segments(ids.cpu().numpy(), truth.labels.tolist())


def predicted_segments(answer: Any) -> Segments:
    """Return panoptic segments if there are any, else one segment per class, else the instances above `LEAST_SCORE`."""
    if answer.panoptic is not None:
        return Segments(answer.panoptic.ids.cpu().numpy(), answer.panoptic.labels.tolist())
    if answer.semantic is not None:
        present = answer.semantic.unique()
        return Segments(1 + torch.searchsorted(present, answer.semantic).cpu().numpy(), present.tolist())
    instances = answer.instances
    order = [i for i in instances.scores.argsort().tolist() if instances.scores[i] >= LEAST_SCORE]
    ids = np.zeros(tuple(instances.masks.shape[-2:]), np.int64)
    for number, i in enumerate(order, 1):  # the highest score last, on top
        ids[instances.masks[i].cpu().numpy()] = number
    return Segments(ids, instances.labels[order].tolist())


def photo_of(image: Any, size: Sequence[int]) -> Image.Image:
    """Return an image (3, h, w) uint8 at the height of a panel, with the aspect ratio of `size`, (height, width)."""
    photo = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    return photo.resize((max(round(HEIGHT * size[1] / size[0]), 1), HEIGHT))


def paint(photo: Image.Image, segments: Segments, categories: Sequence[Any]) -> Image.Image:
    """Return an image under its segments: coloured by class, outlined, named if there is room; no segment is dark."""
    ids, labels = segments.resized(photo.size)
    colors = np.array([(0, 0, 0), *(shade(categories[c], i) for i, c in enumerate(labels))], np.float64)
    pixels = np.asarray(photo)
    mixed = np.empty_like(pixels)
    for rows in np.array_split(np.arange(len(ids)), -(-len(ids) // BAND)):
        mixed[rows] = 0.35 * pixels[rows] + 0.65 * colors[ids[rows]]
    edge = np.zeros(ids.shape, bool)
    edge[1:] |= ids[1:] != ids[:-1]
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    mixed[edge] = 255
    panel = Image.fromarray(mixed)
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default(12)
    for number, label in enumerate(labels, 1):
        mask = ids == number
        if mask.sum() > ROOM:
            at = inner_middle(mask)
            pen.text(at, categories[label].name, "white", font, anchor="mm", stroke_width=2, stroke_fill="black")
    return panel


def inner_middle(mask: np.ndarray) -> tuple[int, int]:
    """Return column and row of the pixel of a mask that is nearest to its centroid, which may lie outside the mask."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # sums of integers, so that the centroid does not depend on the order of addition
    middles = [np.dot(np.arange(len(sums)), sums) / sums.sum() for sums in (mask.sum(1), mask.sum(0))]
    down, across = ((np.arange(side) - middle) ** 2 for side, middle in zip(mask.shape, middles, strict=True))
    nearest = np.where(mask, np.add.outer(down, across), np.inf).argmin()
    row, column = divmod(int(nearest), mask.shape[1])
    return int(columns[0]) + column, int(rows[0]) + row


def shade(category: Any, index: int) -> tuple[int, ...]:
    """Return the colour of a class, for things lighter or darker by index, so that neighbours differ."""
    factor = (1.0, 0.75, 1.25, 0.6, 1.1)[index % 5] if category.isthing else 1.0
    return tuple(min(int(channel * factor), 255) for channel in category.color)


def side_by_side(panels: Mapping[str, Image.Image]) -> Image.Image:
    """Return panels under their titles, in rows of about equal length on a grid with room for the largest panel."""
    width, height = (max(sides) for sides in zip(*(panel.size for panel in panels.values()), strict=True))
    rows = -(-len(panels) // COLUMNS)
    columns = -(-len(panels) // rows)
    size = (columns * (width + MARGIN) + MARGIN, rows * (height + TITLE + MARGIN))
    sheet = Image.new("RGB", size, "white")
    for place, (title, panel) in enumerate(panels.items()):
        left, top = MARGIN + place % columns * (width + MARGIN), place // columns * (height + TITLE + MARGIN)
        ImageDraw.Draw(sheet).text((left, top + 3), title, "black", ImageFont.load_default(14))
        sheet.paste(panel, (left, top + TITLE))
    return sheet
