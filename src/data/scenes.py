"""What every data set looks like, and how it is seen: resized, augmented, reduced to a task."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from src.data.formats.annotations import Objects
from src.data.problems import Problem
from src.data.targets import Category, Sample, Truth, for_task

Transform = Callable[[Sample, np.random.Generator], Sample]


class Identity(NamedTuple):
    """Which image something is about: id and name as its sample has them."""

    image_id: int
    name: str
    size: tuple[int, int]  # height, width


class Scenes(Dataset[Sample]):
    """Annotated images by index, at their original size, the same at every call."""

    categories: list[Category]
    covered = False  # whether segments may be listed that have no pixel
    ignored: Sequence[int] = ()  # values of masks that are no class
    place = "data"  # the file or folder that says what is in the images

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError

    def described(self, index: int) -> Objects | None:
        """What is annotated in an image, where that is known without reading its pictures."""
        return None

    def annotated(self, index: int) -> Truth | None:
        """What is in an image, where that can be read without the image itself."""
        return None

    def identified(self, index: int) -> Identity | None:
        """Which image it is, where that is known without reading it."""
        return None

    def problems_of(self, index: int) -> Iterable[Problem]:
        """What is wrong with an image, as far as it shows without its pixels."""
        return ()


class View(Dataset[Sample]):
    """Scenes seen through a transform.

    A training sampler asks for (index, draw), draw being the place in the stream of samples: what comes out depends
    on (seed, index, draw) alone, not on workers, ranks or where a run was resumed. Evaluation asks for an index.
    """

    def __init__(self, scenes: Scenes, transform: Transform, seed: int, segmentation: str | None = None) -> None:
        self.scenes, self.transform, self.seed = scenes, transform, seed
        self.segmentation = segmentation  # None: the truth keeps all that was annotated

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        index, draw = key if isinstance(key, tuple) else (key, key)
        sample = self.scenes[index]
        if self.segmentation is not None:
            truth = for_task(sample.truth, self.scenes.categories, self.segmentation)
            sample = sample._replace(truth=truth)
        return self.transform(sample, np.random.default_rng((self.seed, draw)))
