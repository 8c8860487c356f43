"""The interface of data sets (`Scenes`), and a view of one: reduced to the task, then resized or augmented."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from src.data.formats.annotations import Objects
from src.data.problems import Problem
from src.data.targets import Category, Sample, Truth

Transform = Callable[[Sample, np.random.Generator], Sample]


class Identity(NamedTuple):
    """An image's id, name and size, equal to those of its sample."""

    image_id: int
    name: str
    size: tuple[int, int]  # height, width


class Scenes(Dataset[Sample]):
    """Annotated images at their original size; an index always gives the same sample."""

    categories: list[Category]
    covered = False  # whether annotations may list segments without pixels
    ignored: Sequence[int] = ()  # mask values that are not classes
    place = "data"  # the annotation file or folder, for messages

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError

    def described(self, index: int) -> Objects | None:
        """Return an image's annotated objects if they are known without reading image or mask files, else None."""
        return None

    def annotated(self, index: int) -> Truth | None:
        """Return an image's truth if it can be read without the image file, else None."""
        return None

    def identified(self, index: int) -> Identity | None:
        """Return an image's identity if it is known without reading the image file, else None."""
        return None

    def problems_of(self, index: int) -> Iterable[Problem]:
        """Return an image's problems that can be found without reading its pixels."""
        return ()


class View(Dataset[Sample]):
    """Scenes seen through a transform.

    Training samplers pass (index, draw), where draw is the position in the stream of samples. The result depends on
    (seed, index, draw) only, not on workers, ranks or where a run resumed. Evaluation passes an index.
    """

    def __init__(self, scenes: Scenes, transform: Transform, seed: int, segmentation: str | None = None) -> None:
        self.scenes, self.transform, self.seed = scenes, transform, seed
        self.segmentation = segmentation  # None: the truth keeps all annotations

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        index, draw = key if isinstance(key, tuple) else (key, key)
        sample = self.scenes[index]
        if self.segmentation is not None:
            truth = sample.truth.for_task(self.scenes.categories, self.segmentation)
            sample = sample._replace(truth=truth)
        return self.transform(sample, np.random.default_rng((self.seed, draw)))
