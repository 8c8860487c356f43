"""Maps and masks of a photo that was answered at a smaller size, as the photo has them: each pixel that of the nearest.

Letters: h x w pixels of the answer, H x W those of the photo.
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
    """From one (height, width) to another that is as large or larger."""

    def __init__(self, small: Sequence[int], large: Sequence[int]) -> None:
        self.small, self.large = (small[0], small[1]), (large[0], large[1])
        self.rows, self.columns = (nearest(old, new, 0, new) for old, new in zip(small, large, strict=True))

    def map(self, values: np.ndarray) -> np.ndarray:
        """Values (h, w, ...) as (H, W, ...), of the same type."""
        if self.small == self.large:
            return values
        return values.take(self.rows, 0).take(self.columns, 1)

    @cached_property
    def sizes(self) -> np.ndarray:
        """How many pixels each becomes: (h, w) float64."""
        rows, columns = (np.bincount(index, minlength=side) for index, side in self.axes)
        return np.multiply.outer(rows, columns).astype(float)

    @property
    def axes(self) -> list[tuple[np.ndarray, int]]:
        """The smaller place of each larger one, and how many smaller ones there are: down, and across."""
        return [(self.rows, self.small[0]), (self.columns, self.small[1])]

    def areas(self, ids: np.ndarray, number: int) -> list[int]:
        """How many pixels each of so many segments has, of a map (h, w) in which the n-th is n."""
        return np.bincount(ids.ravel(), self.sizes.ravel(), minlength=number + 1)[1:].astype(int).tolist()

    def box(self, mask: np.ndarray) -> list[int]:
        """Left, top, width and height of what a mask (h, w) covers, which is something."""
        (top, bottom), (left, right) = (
            (int(np.searchsorted(index, places[0])), int(np.searchsorted(index, places[-1], "right")))
            for (index, _), places in zip(self.axes, map(np.flatnonzero, (mask.any(1), mask.any(0))), strict=True)
        )
        return [left, top, right - left, bottom - top]

    def packed(self, mask: np.ndarray) -> dict[str, Any]:
        """A mask (h, w) as run lengths of (H, W) that JSON can hold; nothing of that size is made."""
        if self.small == self.large:
            return mask_to_rle(mask)
        height, width = self.large
        ends = np.searchsorted(self.rows, np.arange(self.small[0] + 1))  # where smaller rows begin, and the last ends
        padded = np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1)))
        changes = [ends[np.flatnonzero(column)] for column in np.diff(padded)]  # down each smaller column
        runs = np.concatenate([place * height + changes[column] for place, column in enumerate(self.columns)])
        twice = np.flatnonzero(runs[1:] == runs[:-1])  # a run that ends a column goes on in the next one
        runs = np.delete(runs, np.concatenate([twice, twice + 1]))
        counts = np.diff(np.concatenate([[0], runs, [height * width]]))
        whole = counts if counts[-1] else counts[:-1]
        encoded = run_lengths.frPyObjects({"size": [height, width], "counts": whole.tolist()}, height, width)
        return {"size": [height, width], "counts": encoded["counts"].decode()}

    def seen_at(self, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The smaller row and column of each pixel of a picture that Pillow brought from (H, W) to a size."""
        picked = []
        for (index, _), new in zip(self.axes, size, strict=True):
            line = Image.fromarray(np.arange(len(index), dtype=np.int32)[None])
            picked.append(index[np.asarray(line.resize((new, 1), Image.Resampling.NEAREST))[0]])
        return picked[0], picked[1]
