"""Augmentation for training and resizing for evaluation: (sample, random generator) -> sample.

Masks are moved as the integer map they live in, and only what a crop keeps is ever resized.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from src.data.targets import Sample

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the image that is resized


class LargeScaleJitter:
    """Flip, resize by a random factor, cut or fill up to one size: COCO's recipe for Mask2Former.

    The image is made to fit a box of factor x size, keeping its aspect; what is larger than size is cropped, what is
    smaller is padded at the right and the bottom (Ghiasi et al. 2021; detectron2's ResizeScale and FixedSizeCrop).
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
        self.height, self.width = (size, size) if isinstance(size, int) else size
        self.min_scale, self.max_scale, self.flip = min_scale, max_scale, flip

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image, segments = sample.image, sample.truth.segments  # (3, h, w), (L, h, w)
        if rng.random() < self.flip:
            image, segments = image.flip(-1), segments.flip(-1)

        h, w = image.shape[-2:]
        factor = rng.uniform(self.min_scale, self.max_scale)
        scale = factor * min(self.height / h, self.width / w)
        new_h, new_w = max(round(h * scale), 1), max(round(w * scale), 1)
        crop_h, crop_w = min(new_h, self.height), min(new_w, self.width)
        place = rng.random()  # one number for both axes, as detectron2
        top, left = round((new_h - crop_h) * place), round((new_w - crop_w) * place)

        rows, columns = nearest(h, new_h, top, crop_h), nearest(w, new_w, left, crop_w)
        cropped = torch.from_numpy(segments.numpy().take(columns, 2).take(rows, 1))
        seen = torch.bincount(cropped.view(-1), minlength=len(sample.truth.labels) + 1)[1:] > 0
        truth = sample.truth._replace(segments=cropped)
        truth = truth if seen.all() else truth.select(seen)
        padding = (0, self.width - crop_w, 0, self.height - crop_h)
        truth = truth._replace(segments=pad(truth.segments, padding))

        box = (left * w / new_w, top * h / new_h, (left + crop_w) * w / new_w, (top + crop_h) * h / new_h)
        canvas = image.new_full((self.height, self.width, 3), 128).permute(2, 0, 1)  # laid out as resize() gives it
        canvas[:, :crop_h, :crop_w] = resize(image, crop_h, crop_w, box)
        return sample._replace(image=canvas, truth=truth)


class ResizeShortestEdge:
    """The image with its short side at `short`, unless its long side would pass `long`; the truth as it was.

    Sizes round as in detectron2's ResizeShortestEdge, so that published scores can be met.
    """

    def __init__(self, short: int = 800, long: int = 1333) -> None:
        if not 0 < short <= long:
            raise ValueError(f"short side is {short} and long side {long}, expected 0 < short <= long")
        self.short, self.long = short, long

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        h, w = sample.image.shape[-2:]
        scale = self.short / min(h, w)
        if max(h, w) * scale > self.long:
            scale = self.long / max(h, w)
        new_h, new_w = int(h * scale + 0.5), int(w * scale + 0.5)
        if (new_h, new_w) == (h, w):
            return sample
        return sample._replace(image=resize(sample.image, new_h, new_w, (0, 0, w, h)))


def resize(image: Tensor, height: int, width: int, box: Box) -> Tensor:
    """The part of an image (3, h, w) uint8 inside box, bilinear with antialiasing: (3, height, width)."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture = picture.resize((width, height), Image.Resampling.BILINEAR, box)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def nearest(old: int, new: int, start: int, length: int) -> np.ndarray:
    """Which of `old` pixels lies under the centre of each of `length` of `new` pixels, from `start`: (length,)."""
    return (2 * np.arange(start, start + length) + 1) * old // (2 * new)
