"""A data set looked over before training: its problems, how much of what is in it, and some of it to see.

Works on any Scenes, by reading them; formats that know more without reading say so by `described` and `flaws`.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from src.data.checks.class_counts import count, odd
from src.data.checks.inspection import Looks, is_sound, look_at
from src.data.checks.usable import opened
from src.data.module import SegmentationData
from src.data.problems import DataError, Problem, differing_categories
from src.data.scenes import Scenes
from src.data.targets import Category, Sample
from src.painting import paint, photo_of, true_segments

PANEL = (427, 320)  # most width and height of a sample that is shown, pixels


class Survey(NamedTuple):
    """What came of one split."""

    split: str
    num_images: int  # that training or evaluation reads
    problems: list[Problem]  # none twice
    counts: list[dict[str, Any]]  # a row for each class
    samples: dict[str, Image.Image]  # painted, by title
    rate: float  # images per minute and process, opening included


class Validation:
    """Looks over the splits asked for: "train", "val" or "both".

    Without `decode`, pictures are read only where nothing else tells what is in them, and for the samples.
    """

    def __init__(self, split: str, decode: bool, samples: int, progress: bool, seed: int) -> None:
        self.splits = ("train", "val") if split == "both" else (split,)
        self.decode, self.samples, self.progress, self.seed = decode, samples, progress, seed

    def __call__(self, data: Any) -> list[Survey]:
        """What came of each split.

        Raises:
            ValueError: the data are not images.
            FileNotFoundError: a folder or an annotation file is not there.
        """
        if not isinstance(data, SegmentationData):
            kind = type(data).__name__
            raise ValueError(f"data: {kind} has no images, expected a data set that has, as data=coco_panoptic")
        surveys, categories = [], []
        for split in self.splits:
            started = time.perf_counter()
            scenes, problems = opened_by(data.train if split == "train" else data.val)
            if scenes is None:
                surveys.append(Survey(split, 0, problems, [], {}, 0.0))
            else:
                surveys.append(self.look_over(scenes, split, problems, data.num_workers, started))
                categories.append(scenes.categories)
        if len(categories) == 2:
            surveys[0].problems.extend(differing_categories(*categories))
        return surveys

    def look_over(
        self, scenes: Scenes, split: str, problems: list[Problem], num_workers: int, started: float
    ) -> Survey:
        """All images, in worker processes; `problems` are those known already."""
        chosen = np.random.default_rng(self.seed).permutation(len(scenes))[: self.samples].tolist()
        looks = Looks(scenes, self.decode, frozenset(chosen))
        findings = look_at(looks, num_workers, split, self.progress)
        rate = len(scenes) / (time.perf_counter() - started) * 60 / max(num_workers, 1)
        problems = [*problems, *(problem for finding in findings for problem in finding.problems)]
        objects = [finding.objects for finding in findings if finding.objects is not None]
        if len(objects) == len(scenes):  # else a class may be in those that cannot be read
            problems += odd(scenes, objects, [finding.pixels for finding in findings], whole=True)
        shown = sorted(index for index in chosen if is_sound(findings[index]))
        return Survey(
            split,
            len(scenes),
            list(dict.fromkeys(problems)),
            count(objects, scenes.categories),
            dict(panel(split, scenes[index], scenes.categories) for index in shown),
            rate,
        )


def opened_by(make: Callable[..., Scenes]) -> tuple[Scenes | None, list[Problem]]:
    """The scenes that a recipe makes, if it can, and what it complained of."""
    problems: list[Problem] = []
    try:
        return opened(make, problems.extend), problems
    except DataError as error:
        return None, [*problems, *error.problems]


def panel(split: str, sample: Sample, categories: list[Category]) -> tuple[str, Image.Image]:
    """A sample under its segments, and its title."""
    photo = photo_of(sample.image, sample.image.shape[-2:])
    return f"{split}: {sample.name}", ImageOps.contain(paint(photo, true_segments(sample.truth), categories), PANEL)
