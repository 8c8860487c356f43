"""Answers brought to the size of their photo without making all of it at once."""

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths

from src.data.formats.coco_masks import mask_to_rle
from src.prediction.enlarging import Enlarging

SIZES = [
    ((7, 5), (7, 5)),
    ((7, 5), (14, 10)),
    ((7, 5), (23, 17)),
    ((1, 1), (9, 4)),
    ((6, 9), (6, 31)),
    ((8, 3), (9, 3)),
]


def masks(size: tuple[int, int]) -> list[np.ndarray]:
    """Nothing, all, and random ones, among them some that touch every edge."""
    rng = np.random.default_rng(0)
    return [np.zeros(size, bool), np.ones(size, bool), *(rng.random(size) < share for share in (0.1, 0.5, 0.9) * 5)]


@pytest.mark.parametrize(("small", "large"), SIZES)
def test_what_is_said_of_a_mask_is_said_of_the_enlarged(small: tuple[int, int], large: tuple[int, int]) -> None:
    """Run lengths, to the byte, area and box."""
    larger = Enlarging(small, large)
    for mask in masks(small):
        whole = larger.map(mask)
        assert whole.shape == large
        assert larger.packed(mask) == mask_to_rle(whole)
        assert larger.areas(mask.astype(int), 1) == [int(whole.sum())]
        if mask.any():
            runs = run_lengths.encode(np.asfortranarray(whole.astype(np.uint8)))
            assert larger.box(mask) == run_lengths.toBbox(runs).tolist()


@pytest.mark.parametrize(("small", "large"), SIZES)
@pytest.mark.parametrize("shown", [(3, 4), (6, 2)])
def test_a_shrunk_picture_shows_what_the_enlarged_map_would(
    small: tuple[int, int], large: tuple[int, int], shown: tuple[int, int]
) -> None:
    """As Pillow shrinks it to its nearest pixels."""
    values = np.random.default_rng(1).integers(0, 99, small).astype(np.int32)
    larger = Enlarging(small, large)
    rows, columns = larger.seen_at(shown)
    whole = Image.fromarray(larger.map(values)).resize(shown[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(values[rows][:, columns], np.asarray(whole))
