import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.shapes import Shapes
from src.data.targets import Sample, Truth
from src.data.transforms import LargeScaleJitter, ResizeShortestEdge, ShortSideJitter, draw_colors, recolor


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


def rectangle(height: int = 40, width: int = 80) -> Sample:
    """A red rectangle on blue, both segments."""
    segments = torch.ones(1, height, width, dtype=torch.int32)
    segments[:, 10:30, 20:50] = 2
    image = torch.tensor([[0, 0, 255], [255, 0, 0]], dtype=torch.uint8)[segments[0].long() - 1].permute(2, 0, 1)
    ones = torch.ones(2)
    return Sample(image, Truth(segments, ones.long().cumsum(0) - 1, ones < 0, ones), 0, "rectangle")


@pytest.mark.parametrize("size", [48, (20, 40), (128, 160)])
def test_short_side_jitter_keeps_segments_on_their_pixels(size: int | tuple[int, int]):
    """Resized, cropped, padded and mirrored, the map is where the colours are, but for blended borders."""
    height, width = (size, size) if isinstance(size, int) else size
    for seed in range(20):
        out = ShortSideJitter(32, 128, size, color=0)(rectangle(), np.random.default_rng(seed))
        assert out.image.shape == (3, height, width)
        assert out.truth.segments.shape == (1, height, width)
        labels = torch.cat([torch.tensor([-1]), out.truth.labels])[out.truth.segments[0].long()]
        blue, red, void = (out.image[:, labels == label].int() for label in (0, 1, -1))
        assert (void == 128).all()
        assert ((red[0] > 80) & (red[2] < 175)).all()
        assert ((blue[2] > 80) & (blue[0] < 175)).all()


@pytest.mark.parametrize(
    ("old", "short", "long", "new"),
    [
        ((1024, 2048), 1024, 4096, [int(step * 0.1 * 1024) for step in range(5, 21)]),
        ((512, 683), 640, 2560, [64 * step for step in range(5, 21)]),
        ((100, 400), 100, 400, [50, 60, 70, 80, 90] + [100] * 11),
    ],
)
def test_short_sides_are_tenths_of_the_base(old: tuple[int, int], short: int, long: int, new: list[int]):
    """An image's short side becomes 0.5 to 2 times the base, in tenths, unless the long side would be too long."""
    height = [one.resized(*old)[0] for one in ShortSideJitter(short, max(long, 2 * short), 64).resizes]
    assert [min(one, round(long * old[0] / old[1])) for one in height] == new


def test_short_side_jitter_reaches_every_place():
    """Over many draws, crops begin at both ends of the image and between, in rows and columns independently."""
    rows, columns = torch.meshgrid(torch.arange(60), torch.arange(90), indexing="ij")
    image = torch.stack([rows, columns, rows]).to(torch.uint8)
    jitter = ShortSideJitter(60, 180, 30, flip=0, color=0)
    jitter.resizes = [ResizeShortestEdge(60, 90)]
    corners = [
        jitter(scene()._replace(image=image), np.random.default_rng(seed)).image[:2, 0, 0] for seed in range(200)
    ]
    tops, lefts = torch.stack(corners).int().T
    assert (tops.min(), tops.max(), lefts.min(), lefts.max()) == (0, 30, 0, 60)
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.3


def test_short_side_jitter_is_reproducible():
    """The same generator gives the same sample, another generator another."""
    jitter = ShortSideJitter(60, 180, (40, 60))
    one, same, other = (jitter(scene(), np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(one.image, same.image)
    assert torch.equal(one.truth.segments, same.truth.segments)
    assert not torch.equal(one.image, other.image)


def test_colours_change_and_nothing_else():
    """With colours jittered or not, an image has the same place, the same map and the same padding."""
    plain, colored = (ShortSideJitter(30, 90, 64, color=color) for color in (0, 1))
    for seed in range(10):
        one, two = (jitter(scene(), np.random.default_rng(seed)) for jitter in (plain, colored))
        torch.testing.assert_close(one.truth[:4], two.truth[:4], rtol=0, atol=0)
        assert not torch.equal(one.image, two.image)
        assert torch.equal((one.image == 128).all(0)[-1], (two.image == 128).all(0)[-1])


@pytest.mark.parametrize(
    ("change", "red", "grey"),
    [
        ({}, (200, 50, 50), 100),
        ({"brightness": 32}, (232, 82, 82), 132),
        ({"brightness": -100}, (100, 0, 0), 0),
        ({"before": 1.5}, (255, 75, 75), 150),
        ({"after": 0.5}, (100, 25, 25), 50),
        ({"hue": 1 / 3}, (50, 200, 50), 100),
        ({"hue": -1 / 6}, (200, 50, 200), 100),
        ({"saturation": 0.5}, (200, 125, 125), 100),
        ({"saturation": 1.5}, (200, 0, 0), 100),
        ({"before": 0.5, "saturation": 0.5, "after": 1.5}, (150, 93, 93), 75),
    ],
)
def test_recoloring_does_what_it_says(change: dict[str, float], red: tuple[int, int, int], grey: int):
    """Brightness adds, contrast scales about black, saturation keeps the brightest channel; nothing leaves 0..255."""
    image = torch.tensor([[200, 100], [50, 100], [50, 100]], dtype=torch.uint8)[:, None]
    nothing = {"brightness": 0, "before": 1, "hue": 0, "saturation": 1, "after": 1}
    out = recolor(image, **nothing | change)
    assert out.dtype == torch.uint8
    assert (out[:, 0].T.int() - torch.tensor([red, (grey, grey, grey)])).abs().max() <= (0 if not change else 3)


def test_colours_are_drawn_as_ssd_draws_them():
    """Each change is made half of the time and in its range, contrast as often before as after the others."""
    rng = np.random.default_rng(0)
    drawn = np.array([draw_colors(0.5, rng) for _ in range(2000)])
    shares = (drawn != [0, 1, 0, 1, 1]).mean(0)
    assert np.allclose(shares, [0.5, 0.25, 0.5, 0.5, 0.25], atol=0.05)
    assert np.allclose(drawn.min(0), [-32, 0.5, -0.1, 0.5, 0.5], rtol=0.02)
    assert np.allclose(drawn.max(0), [32, 1.5, 0.1, 1.5, 1.5], rtol=0.02)
    assert not ((drawn[:, 1] != 1) & (drawn[:, 4] != 1)).any()


def test_even_the_thinnest_image_keeps_a_pixel() -> None:
    """One pixel by a hundred thousand is brought to the long side, one pixel wide still."""
    assert ResizeShortestEdge(800, 1333).resized(1, 100_000) == (1, 1333)
