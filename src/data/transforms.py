"""Augmentation for training and resizing for evaluation: (sample, random generator) -> sample.

Masks are transformed as one integer map, and only the cropped part is resized.
"""

import sys
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from src.data.targets import Sample

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the image that is resized


class LargeScaleJitter:
    """Flip, resize by a random factor, crop or pad to one size: Mask2Former's recipe for COCO.

    The image is resized to fit a box of factor x size, keeping its aspect ratio; what exceeds size is cropped, what is
    missing is padded at the right and the bottom (Ghiasi et al. 2021; detectron2's ResizeScale and FixedSizeCrop).
    `min_scale = max_scale = 1` and an image of that size leave only the flip.
    """

    def __init__(
        self,
        size: int | tuple[int, int] = 1024,  # or (height, width)
        min_scale: float = 0.1,
        max_scale: float = 2.0,
        flip: float = 0.5,  # probability
    ) -> None:
        if not 0 < min_scale <= max_scale:
            raise ValueError(f"scales are {min_scale} to {max_scale}, expected 0 < min_scale <= max_scale")
        self.size = (size, size) if isinstance(size, int) else size
        self.min_scale, self.max_scale, self.flip = min_scale, max_scale, flip

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() < self.flip:
            sample = mirror(sample)
        h, w = sample.image.shape[-2:]
        factor = rng.uniform(self.min_scale, self.max_scale)
        scale = factor * min(self.size[0] / h, self.size[1] / w)
        new_h, new_w = max(round(h * scale), 1), max(round(w * scale), 1)
        place = rng.random()  # one number for both axes, as detectron2
        sample = crop(sample, (new_h, new_w), self.size, (place, place))
        return fill(sample, self.size)


class ShortSideJitter:
    """Resize, crop or pad to one size, recolour, flip: Mask2Former's recipe for Cityscapes and ADE20K.

    The short side becomes 0.5, 0.6, ... or 2 times `short`, unless the long side would exceed `long`. What exceeds size
    is cropped at a random place, what is missing is padded at the right and the bottom.
    """

    def __init__(
        self,
        short: int,
        long: int,
        size: int | tuple[int, int],  # or (height, width)
        flip: float = 0.5,  # probability
        color: float = 0.5,  # probability of each change of colour
    ) -> None:
        shorts = [
            int(step * 0.1 * short) for step in range(5, 21)
        ]  # rounding errors included, as in Mask2Former's configs
        self.resizes = [ResizeShortestEdge(one, long) for one in shorts]
        self.size = (size, size) if isinstance(size, int) else size
        self.flip, self.color = flip, color

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        h, w = sample.image.shape[-2:]
        new = self.resizes[rng.integers(len(self.resizes))].resized(h, w)
        sample = crop(sample, new, self.size, (rng.random(), rng.random()))
        sample = sample._replace(image=recolor(sample.image, *draw_colors(self.color, rng)))
        if rng.random() < self.flip:
            sample = mirror(sample)
        return fill(sample, self.size)


class RandomResize:
    """Flip, resize to a random short side, half of the time after a random crop: DETR's recipe (section 4).

    A crop is taken where the short side is one of `crop_shorts`; its sides are drawn from `crop_sides`, or are
    those of the image where it is smaller. Nothing is padded: images of one batch differ in size.
    """

    def __init__(
        self,
        shorts: Sequence[int] = range(480, 801, 32),
        long: int = 1333,
        crop: float = 0.5,  # probability
        crop_shorts: Sequence[int] = (400, 500, 600),
        crop_sides: tuple[int, int] = (384, 600),  # least and greatest
        flip: float = 0.5,  # probability
    ) -> None:
        least, greatest = crop_sides
        if not 0 < least <= greatest:
            raise ValueError(f"crop_sides are {least} and {greatest}, expected 0 < least <= greatest")
        self.resizes = [ResizeShortestEdge(short, long) for short in shorts]
        self.before_crop = [ResizeShortestEdge(short, sys.maxsize) for short in crop_shorts]
        self.crop, self.crop_sides, self.flip = crop, (least, greatest), flip

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() < self.flip:
            sample = mirror(sample)
        h, w = sample.image.shape[-2:]
        resize_to = self.resizes[rng.integers(len(self.resizes))]
        if rng.random() >= self.crop:
            new = resize_to.resized(h, w)
            return crop(sample, new, new, (0, 0))
        first = self.before_crop[rng.integers(len(self.before_crop))].resized(h, w)
        sides = [self.draw_side(side, rng) for side in first]
        size = resize_to.resized(*sides)
        # one resize to where the crop has its size, instead of two: nothing is interpolated twice
        scaled = [max(round(side * final / cut), final) for side, final, cut in zip(first, size, sides, strict=True)]
        return crop(sample, (scaled[0], scaled[1]), size, (rng.random(), rng.random()))

    def draw_side(self, side: int, rng: np.random.Generator) -> int:
        """Draw a side of the crop of an image with this side."""
        least, greatest = (min(limit, side) for limit in self.crop_sides)
        return int(rng.integers(least, greatest + 1))


class ResizeShortestEdge:
    """Resize the image to a short side of `short`, or a long side of `long` if that is smaller; keep the truth.

    Sizes are rounded as in detectron2's ResizeShortestEdge, to reproduce published scores.
    """

    def __init__(self, short: int = 800, long: int = 1333) -> None:
        if not 0 < short <= long:
            raise ValueError(f"short side is {short} and long side {long}, expected 0 < short <= long")
        self.short, self.long = short, long

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return sample._replace(image=self.image(sample.image))

    def image(self, image: Tensor) -> Tensor:
        """Resize an image (3, h, w) uint8."""
        h, w = image.shape[-2:]
        new = self.resized(h, w)
        return image if new == (h, w) else resize(image, *new, (0, 0, w, h))

    def scaled(self, factor: float) -> "ResizeShortestEdge":
        """Return a transform to `factor` times the size."""
        return ResizeShortestEdge(*(max(round(side * factor), 1) for side in (self.short, self.long)))

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) that an image of this size is resized to."""
        scale = self.short / min(height, width)
        if max(height, width) * scale > self.long:
            scale = self.long / max(height, width)
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def mirror(sample: Sample) -> Sample:
    """Flip a sample left to right."""
    return sample._replace(image=sample.image.flip(-1), truth=sample.truth.mirrored())


def crop(sample: Sample, new: tuple[int, int], size: tuple[int, int], place: tuple[float, float]) -> Sample:
    """Resize a sample to `new`, then crop it to at most `size`; `place` is from 0 (top, left) to 1 (bottom, right).

    Segments without pixels in the crop are removed. Annotated boxes are kept only if nothing is cut off; else the
    pixels that are left say where objects end.
    """
    image, truth = sample.image, sample.truth  # (3, h, w)
    (h, w), (new_h, new_w) = image.shape[-2:], new
    crop_h, crop_w = min(new_h, size[0]), min(new_w, size[1])
    top, left = round((new_h - crop_h) * place[0]), round((new_w - crop_w) * place[1])

    rows, columns = nearest(h, new_h, top, crop_h), nearest(w, new_w, left, crop_w)
    segments = torch.from_numpy(truth.segments.numpy().take(columns, 2).take(rows, 1))
    seen = torch.bincount(segments.view(-1), minlength=len(truth.labels) + 1)[1:] > 0
    boxes = truth.annotated_boxes
    if boxes is not None:
        scale = boxes.new_tensor([new_w / w, new_h / h, new_w / w, new_h / h])
        boxes = boxes * scale if (crop_h, crop_w) == (new_h, new_w) else None
    truth = truth._replace(segments=segments, annotated_boxes=boxes)

    box = (left * w / new_w, top * h / new_h, (left + crop_w) * w / new_w, (top + crop_h) * h / new_h)
    image = resize(image, crop_h, crop_w, box)
    return sample._replace(image=image, truth=truth if seen.all() else truth.select(seen))


def fill(sample: Sample, size: tuple[int, int]) -> Sample:
    """Pad a sample at the right and the bottom with grey, void pixels."""
    (h, w), (height, width) = sample.image.shape[-2:], size
    canvas = sample.image.new_full((height, width, 3), 128).permute(2, 0, 1)  # laid out as resize() gives it
    canvas[:, :h, :w] = sample.image
    segments = pad(sample.truth.segments, (0, width - w, 0, height - h))
    return sample._replace(image=canvas, truth=sample.truth._replace(segments=segments))


def draw_colors(probability: float, rng: np.random.Generator) -> tuple[float, float, float, float, float]:
    """Draw arguments of `recolor` by SSD's recipe (Liu et al. 2016); `probability` is that of each change.

    Contrast changes either before or after saturation and hue.
    """
    on = rng.random(4) < probability
    brightness, hue = rng.uniform(-32, 32) * on[0], rng.uniform(-0.1, 0.1) * on[1]  # 18 of OpenCV's 180 hues
    contrast, saturation = np.where(on[2:], rng.uniform(0.5, 1.5, 2), 1)
    before, after = (contrast, 1) if rng.random() < 0.5 else (1, contrast)
    return brightness, before, hue, saturation, after


def recolor(image: Tensor, brightness: float, before: float, hue: float, saturation: float, after: float) -> Tensor:
    """Change the colours of an image (3, h, w) uint8.

    In order: add `brightness`, multiply by contrast `before`, add `hue` (in turns), multiply saturation by
    `saturation`, multiply by contrast `after`.
    """
    levels = np.arange(256)
    lit = (levels + brightness).clip(0, 255) * before
    picture = Image.fromarray(image.permute(1, 2, 0).numpy()).point(table(lit, lit, lit))
    if (hue, saturation) != (0, 1):  # HSV and back is slow and rounds
        turned = (levels + round(hue * 256)) % 256
        picture = picture.convert("HSV").point(table(turned, levels * saturation, levels)).convert("RGB")
    picture = picture.point(table(*3 * [levels * after]))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def table(*bands: np.ndarray) -> list[int]:
    """Return the lookup table of Pillow's `point` for the 256 levels of each band."""
    return np.concatenate(bands).clip(0, 255).astype(np.uint8).tolist()


def resize(image: Tensor, height: int, width: int, box: Box) -> Tensor:
    """Resize the box of an image (3, h, w) uint8, bilinear with antialiasing: (3, height, width)."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture = picture.resize((width, height), Image.Resampling.BILINEAR, box)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def nearest(old: int, new: int, start: int, length: int) -> np.ndarray:
    """Return, for `length` of `new` pixels from `start`, which of `old` pixels is under their centre: (length,)."""
    return (2 * np.arange(start, start + length) + 1) * old // (2 * new)
