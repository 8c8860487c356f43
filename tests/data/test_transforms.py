import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.shapes import Shapes
from src.data.targets import Sample
from src.data.transforms import LargeScaleJitter, ResizeShortestEdge


def scene(height: int = 60, width: int = 90, layers: int = 1) -> Sample:
    sample = Shapes(40, size=96)[3]
    segments = sample.truth.segments[:, :height, :width].repeat(layers, 1, 1)
    return sample._replace(image=sample.image[:, :height, :width], truth=sample.truth._replace(segments=segments))


def bilinear(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Every pixel takes the one under its centre."""
    rows = [math.floor(Fraction(2 * y + 1, 2 * height) * mask.shape[0]) for y in range(height)]
    columns = [math.floor(Fraction(2 * x + 1, 2 * width) * mask.shape[1]) for x in range(width)]
    return mask[np.ix_(rows, columns)]


def slowly(picture: np.ndarray, seed: int, size: tuple[int, int], fill: int, resize: Callable[..., np.ndarray]):
    """The recipe at scales 0.1 to 2 on one picture, all of it resized before the crop."""
    rng = np.random.default_rng(seed)
    picture = picture[:, ::-1] if rng.random() < 0.5 else picture
    (height, width), (h, w) = size, picture.shape[:2]
    factor = rng.uniform(0.1, 2.0)
    scale = min(factor * height / h, factor * width / w)
    new_h, new_w = round(h * scale), round(w * scale)
    place = rng.random()
    top, left = (round(max(new - out, 0) * place) for new, out in ((new_h, height), (new_w, width)))
    crop = resize(picture, new_h, new_w)[top : top + height, left : left + width]
    full = np.full((height, width, *crop.shape[2:]), fill, crop.dtype)
    full[: crop.shape[0], : crop.shape[1]] = crop
    return full


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [64, (50, 110)])
def test_jitter_moves_masks_as_if_one_by_one(seed: int, size: int | tuple[int, int]):
    """Jitter on the map of segments equals resizing, cropping and padding every mask by itself."""
    sample = scene()
    out = LargeScaleJitter(size, 0.1, 2.0)(sample, np.random.default_rng(seed))
    box = (size, size) if isinstance(size, int) else size
    masks = [slowly(mask.numpy(), seed, box, 0, nearest) for mask in sample.truth.masks()]
    seen = torch.tensor([bool(mask.any()) for mask in masks])
    assert torch.equal(out.truth.masks(), torch.from_numpy(np.stack(masks))[seen])
    assert torch.equal(out.truth.labels, sample.truth.labels[seen])


@pytest.mark.parametrize("seed", range(12))
def test_jitter_resizes_only_what_it_keeps(seed: int):
    """The image equals the whole resized image, cropped and padded with 128, up to rounding."""
    sample = scene()
    out = LargeScaleJitter(64, 0.1, 2.0)(sample, np.random.default_rng(seed)).image
    whole = slowly(sample.image.permute(1, 2, 0).numpy(), seed, (64, 64), 128, bilinear)
    assert out.shape == (3, 64, 64)
    assert (out.permute(1, 2, 0).int() - torch.from_numpy(whole).int()).abs().max() <= 3


def test_jitter_treats_layers_alike():
    """Where segments lie in several layers, every layer is moved as one layer alone is."""
    one = LargeScaleJitter(64)(scene(), np.random.default_rng(5)).truth.segments
    two = LargeScaleJitter(64)(scene(layers=2), np.random.default_rng(5)).truth.segments
    assert torch.equal(two, one.repeat(2, 1, 1))


def test_jitter_leaves_no_empty_segment():
    """After a narrow crop every segment still has a pixel."""
    for seed in range(30):
        truth = LargeScaleJitter(32, 2.0, 2.0)(scene(), np.random.default_rng(seed)).truth
        assert truth.masks().flatten(1).any(1).all()


def test_without_scale_only_the_flip_is_left():
    """At scale 1 and the image's own size, an image comes out as it was, or mirrored."""
    sample = scene(96, 96)
    same, mirrored = (LargeScaleJitter(96, 1, 1, flip)(sample, np.random.default_rng(0)) for flip in (0, 1))
    assert torch.equal(same.image, sample.image)
    assert torch.equal(same.truth.segments, sample.truth.segments)
    assert torch.equal(mirrored.image, sample.image.flip(-1))
    assert torch.equal(mirrored.truth.segments, sample.truth.segments.flip(-1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),
        ((300, 900), (444, 1333)),
        ((800, 900), (800, 900)),
    ],
)
def test_evaluation_sizes_are_detectron2s(old: tuple[int, int], new: tuple[int, int]):
    """The short side becomes 800 unless the long side would pass 1333; the truth is left alone."""
    sample = scene()._replace(image=torch.zeros(3, *old, dtype=torch.uint8))
    out = ResizeShortestEdge(800, 1333)(sample, np.random.default_rng(0))
    assert out.image.shape == (3, *new)
    assert out.truth is sample.truth


@pytest.mark.parametrize("scales", [(0, 1), (2, 1)])
def test_impossible_scales_are_refused(scales: tuple[float, float]):
    """Scales must be positive and in order."""
    with pytest.raises(ValueError, match="min_scale"):
        LargeScaleJitter(64, *scales)
