"""Validation of a data set before training: its problems, counts of objects, and painted samples.

Works on any Scenes by reading them; formats that know more without reading implement `described` and `problems_of`.
"""

import time
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from src.data.checks.class_counts import count, unusual
from src.data.checks.inspection import Looks, inspect_all
from src.data.checks.usable import opened
from src.data.module import SegmentationData
from src.data.problems import DataError, Problem, differing_categories
from src.data.scenes import Scenes
from src.data.targets import Category, Sample
from src.painting import paint, photo_of, true_segments

PANEL = (427, 320)  # largest width and height of a painted sample, pixels


class Survey(NamedTuple):
    """The result of validating one split."""

    split: str
    num_images: int  # that training or evaluation reads
    problems: list[Problem]  # none twice
    counts: list[dict[str, Any]]  # a row for each class
    samples: dict[str, Image.Image]  # painted, by title
    rate: float  # images per minute and process, opening included


class Validation:
    """Validates the splits asked for: "train", "val" or "both".

    Without `decode`, images are decoded only if their objects are not known otherwise, and for the samples.
    """

    def __init__(self, split: str, decode: bool, samples: int, progress: bool, seed: int) -> None:
        self.splits = ("train", "val") if split == "both" else (split,)
        self.decode, self.samples, self.progress, self.seed = decode, samples, progress, seed

    def __call__(self, data: Any) -> list[Survey]:
        """Return a survey of each split.

        Raises:
            ValueError: the data are not images.
            FileNotFoundError: a folder or an annotation file does not exist.
        """
        if not isinstance(data, SegmentationData):
            kind = type(data).__name__
            raise ValueError(f"data: {kind} has no images, expected a data set that has, as data=coco_panoptic")
        surveys, categories = [], []
        for split in self.splits:
            started = time.perf_counter()
            problems: list[Problem] = []
            try:
                make = data.train if split == "train" else data.val
                scenes = opened(make, problems.extend, data.segmentation)
            except DataError as error:
                surveys.append(Survey(split, 0, [*problems, *error.problems], [], {}, 0.0))
            else:
                surveys.append(self.survey(scenes, split, problems, data.num_workers, started))
                categories.append(scenes.categories)
        if len(categories) == 2:
            surveys[0].problems.extend(differing_categories(*categories))
        return surveys

    def survey(self, scenes: Scenes, split: str, problems: list[Problem], num_workers: int, started: float) -> Survey:
        """Inspect all images in worker processes; `problems` are those known already."""
        chosen = np.random.default_rng(self.seed).permutation(len(scenes))[: self.samples].tolist()
        looks = Looks(scenes, decoded=range(len(scenes)) if self.decode else chosen)
        findings = inspect_all(looks, num_workers, split, self.progress)
        rate = len(scenes) / (time.perf_counter() - started) * 60 / max(num_workers, 1)
        problems = [*problems, *(problem for finding in findings for problem in finding.problems)]
        objects = [finding.objects for finding in findings if finding.objects is not None]
        if len(objects) == len(scenes):  # else an image that cannot be read may show a class that no other shows
            problems += unusual(scenes, findings, whole=True)
        shown = sorted(index for index in chosen if findings[index].is_sound)
        samples = dict(panel(split, scenes[index], scenes.categories) for index in shown)
        counts = count(objects, scenes.categories)
        return Survey(split, len(scenes), list(dict.fromkeys(problems)), counts, samples, rate)


def panel(split: str, sample: Sample, categories: list[Category]) -> tuple[str, Image.Image]:
    """Return the title of a sample, and its image under its segments."""
    photo = photo_of(sample.image, sample.image.shape[-2:])
    return f"{split}: {sample.name}", ImageOps.contain(paint(photo, true_segments(sample.truth), categories), PANEL)
