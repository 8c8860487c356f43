"""Segments and boxes painted over images, and panels put side by side.

Shapes: H x W are the pixels of an image.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

HEIGHT = 320  # of a panel, pixels
MARGIN, TITLE = 8, 22
COLUMNS = 4
LEAST_SCORE = 0.5  # of instances that are drawn
BAND = 256  # rows that are blended at a time, which saves memory
ROOM = 900  # pixels that a segment needs in a panel to be named


Resize = Callable[[np.ndarray, tuple[int, int]], np.ndarray]  # a map (h, w) to a size of (width, height)


def nearest(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a map (h, w) int32 at a size of (width, height)."""
    return np.asarray(Image.fromarray(ids.astype(np.int32)).resize(size, Image.Resampling.NEAREST))


class Layer(Protocol):
    """What is painted over an image."""

    def resized(self, size: tuple[int, int], resize: Resize = nearest) -> "Layer":
        """Return the layer at a size of (width, height); `resize` is for maps."""

    def over(self, photo: Image.Image, categories: Sequence[Any]) -> Image.Image:
        """Return an image of the layer's size under it."""


class Segments(NamedTuple):
    """A map of segments and their classes."""

    ids: np.ndarray  # (H, W) int32; 0: no segment
    labels: list[int]  # class index of segment 1, 2 and so on

    def resized(self, size: tuple[int, int], resize: Resize = nearest) -> "Segments":
        """Return the segments at a size of (width, height)."""
        return Segments(resize(self.ids, size), self.labels)

    def classes(self) -> np.ndarray:
        """Return class index + 1 of every pixel, (H, W) int32; 0 for no segment."""
        return np.array([0, *(label + 1 for label in self.labels)], np.int32)[self.ids]

    def over(self, photo: Image.Image, categories: Sequence[Any]) -> Image.Image:
        """Return an image of this size under the segments: coloured by class, outlined, named if there is room."""
        ids, labels = self
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
        pen = ImageDraw.Draw(panel)
        for number, label in enumerate(labels, 1):
            mask = ids == number
            if mask.sum() > ROOM:
                write(pen, inner_middle(mask), categories[label].name, "mm")
        return panel


class Outlines(NamedTuple):
    """Boxes and their classes."""

    boxes: np.ndarray  # (N, 4) left, top, right, bottom in pixels of the size
    labels: list[int]  # class index of each
    scores: list[float] | None  # of each; None: it is the truth
    size: tuple[int, int]  # (width, height) of the image

    def resized(self, size: tuple[int, int], resize: Resize = nearest) -> "Outlines":
        """Return the boxes at a size of (width, height)."""
        scale = np.array([size[0] / self.size[0], size[1] / self.size[1]] * 2)
        return self._replace(boxes=self.boxes * scale, size=size)

    def over(self, photo: Image.Image, categories: Sequence[Any]) -> Image.Image:
        """Return an image of this size under the boxes: outlined by class, with name and score; the first on top."""
        panel = photo.copy()
        pen = ImageDraw.Draw(panel)
        thickness = max(round(max(self.size) / 300), 2)
        for number in reversed(range(len(self.labels))):
            category, box = categories[self.labels[number]], self.boxes[number].tolist()
            pen.rectangle(ordered(box), outline=shade(category, 0), width=thickness)
        for number in reversed(range(len(self.labels))):
            name, (left, top, *_) = categories[self.labels[number]].name, self.boxes[number].tolist()
            score = "" if self.scores is None else f" {self.scores[number]:.2f}"
            write(pen, (left + 2 + thickness, top + 1 + thickness), f"{name}{score}", "lt")
        return panel


def ordered(box: Sequence[float]) -> list[float]:
    """Return left, top, right, bottom with the last pixel inside, also where a box is narrower than a pixel."""
    left, top, right, bottom = box
    return [left, top, max(right - 1, left), max(bottom - 1, top)]


def write(pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, anchor: str) -> None:
    """Write white text with a dark edge."""
    font = ImageFont.load_default(12)
    pen.text(at, text, "white", font, anchor=anchor, stroke_width=2, stroke_fill="black")


def true_segments(truth: Any) -> Segments:
    """Return the annotated segments, the first layer on top."""
    ids = truth.segments[0]
    for layer in truth.segments[1:]:
        ids = ids.where(ids > 0, layer)
    return Segments(ids.cpu().numpy(), truth.labels.tolist())


def true_boxes(truth: Any, categories: Sequence[Any]) -> Outlines:
    """Return the annotated boxes of things."""
    kept = [number for number, label in enumerate(truth.labels.tolist()) if categories[label].isthing]
    height, width = truth.segments.shape[-2:]
    return Outlines(truth.boxes()[kept].cpu().numpy(), truth.labels[kept].tolist(), None, (width, height))


def true_layer(truth: Any, answer: Any, categories: Sequence[Any]) -> Layer:
    """Return what `answer` should have been: boxes or segments."""
    return true_segments(truth) if answer.boxes is None else true_boxes(truth, categories)


def predicted_layer(answer: Any, size: Sequence[int]) -> Layer:
    """Return panoptic segments if there are any, else one segment per class, else what scores above `LEAST_SCORE`.

    Args:
        size: (height, width) of the image that boxes refer to.
    """
    if answer.panoptic is not None:
        return Segments(answer.panoptic.ids.cpu().numpy(), answer.panoptic.labels.tolist())
    if answer.semantic is not None:
        present = answer.semantic.unique()
        return Segments(1 + torch.searchsorted(present, answer.semantic).cpu().numpy(), present.tolist())
    return predicted_instances(answer.instances) if answer.boxes is None else predicted_boxes(answer.boxes, size)


def predicted_instances(instances: Any) -> Segments:
    """Return the instances above `LEAST_SCORE`, the highest score on top."""
    order = [i for i in instances.scores.argsort().tolist() if instances.scores[i] >= LEAST_SCORE]
    ids = np.zeros(tuple(instances.masks.shape[-2:]), np.int64)
    for number, i in enumerate(order, 1):  # the highest score last, on top
        ids[instances.masks[i].cpu().numpy()] = number
    return Segments(ids, instances.labels[order].tolist())


def predicted_boxes(boxes: Any, size: Sequence[int]) -> Outlines:
    """Return the boxes above `LEAST_SCORE`, the highest score first."""
    order = [i for i in boxes.scores.argsort(descending=True).tolist() if boxes.scores[i] >= LEAST_SCORE]
    corners, scores = boxes.boxes[order].cpu().numpy(), boxes.scores[order].tolist()
    return Outlines(corners, boxes.labels[order].tolist(), scores, (size[1], size[0]))


def photo_of(image: Any, size: Sequence[int]) -> Image.Image:
    """Return an image (3, h, w) uint8 at the height of a panel, with the aspect ratio of `size`, (height, width)."""
    photo = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    return photo.resize((max(round(HEIGHT * size[1] / size[0]), 1), HEIGHT))


def paint(photo: Image.Image, layer: Layer, categories: Sequence[Any]) -> Image.Image:
    """Return an image under segments or boxes."""
    return layer.resized(photo.size).over(photo, categories)


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
