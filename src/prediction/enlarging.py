"""Enlarge predicted maps and masks to the size of the image, by nearest neighbour.

Letters: h x w pixels of the prediction, H x W pixels of the image.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from src.data.formats.coco_masks import mask_to_rle
from src.data.transforms import nearest


class Enlarging:
    """Nearest-neighbour enlargement from `small` (h, w) to `large` (H, W), which is at least as large."""

    def __init__(self, small: Sequence[int], large: Sequence[int]) -> None:
        self.small, self.large = (small[0], small[1]), (large[0], large[1])
        self.rows = nearest(small[0], large[0], 0, large[0])  # the small row of each large row
        self.columns = nearest(small[1], large[1], 0, large[1])

    def map(self, values: np.ndarray) -> np.ndarray:
        """Enlarge values (h, w, ...) to (H, W, ...)."""
        if self.small == self.large:
            return values
        return values.take(self.rows, 0).take(self.columns, 1)

    @cached_property
    def sizes(self) -> np.ndarray:
        """The number of pixels of the image that each pixel covers: (h, w) float64."""
        rows = np.bincount(self.rows, minlength=self.small[0])
        columns = np.bincount(self.columns, minlength=self.small[1])
        return np.multiply.outer(rows, columns).astype(float)

    def areas(self, ids: np.ndarray, number: int) -> list[int]:
        """Return the enlarged areas, in pixels, of segments 1 to `number` of a map (h, w)."""
        return np.bincount(ids.ravel(), self.sizes.ravel(), minlength=number + 1)[1:].astype(int).tolist()

    def box(self, mask: np.ndarray) -> list[int]:
        """Return left, top, width and height of the enlarged box of a non-empty mask (h, w)."""
        top, bottom = extent(self.rows, np.flatnonzero(mask.any(1)))
        left, right = extent(self.columns, np.flatnonzero(mask.any(0)))
        return [left, top, right - left, bottom - top]

    def packed(self, mask: np.ndarray) -> dict[str, Any]:
        """Encode a mask (h, w) as COCO's compressed RLE of (H, W), without creating the enlarged mask."""
        if self.small == self.large:
            return mask_to_rle(mask)
        height, width = self.large
        ends = np.searchsorted(self.rows, np.arange(self.small[0] + 1))  # the first large row of each small row, and H
        padded = np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1)))
        changes = [ends[np.flatnonzero(column)] for column in np.diff(padded)]  # of value, down each small column
        runs = np.concatenate([place * height + changes[column] for place, column in enumerate(self.columns)])
        twice = np.flatnonzero(runs[1:] == runs[:-1])  # a run at the end of a column continues in the next one
        runs = np.delete(runs, np.concatenate([twice, twice + 1]))
        counts = np.diff(np.concatenate([[0], runs, [height * width]]))
        whole = counts if counts[-1] else counts[:-1]
        encoded = run_lengths.frPyObjects({"size": [height, width], "counts": whole.tolist()}, height, width)
        return {"size": [height, width], "counts": encoded["counts"].decode()}

    def seen_at(self, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the small row and column of each pixel of an image that Pillow resized from (H, W) to `size`."""
        picked = []
        for index, new in zip((self.rows, self.columns), size, strict=True):
            line = Image.fromarray(np.arange(len(index), dtype=np.int32)[None])
            picked.append(index[np.asarray(line.resize((new, 1), Image.Resampling.NEAREST))[0]])
        return picked[0], picked[1]


def extent(index: np.ndarray, places: np.ndarray) -> tuple[int, int]:
    """Return start and end, in large indices, of sorted small indices; `index` has the small one of each large one."""
    return int(np.searchsorted(index, places[0])), int(np.searchsorted(index, places[-1], "right"))
