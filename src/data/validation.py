"""A data set looked over before training: its problems, how much of what is in it, and some of it to see.

Works on any Scenes, by reading them; formats that know more without reading say so by `described` and `flaws`.
"""

import time
from collections.abc import Callable, Iterator
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from src.data.annotations import Objects
from src.data.module import SegmentationData
from src.data.pictures import other_size
from src.data.problems import DataError, Kind, Problem, other_categories
from src.data.scenes import Scenes
from src.data.targets import Category, Sample, Truth
from src.painting import paint, photo_of, true_segments

SMALL, MEDIUM = 32**2, 96**2  # pixels, as COCO tells small from medium and large
PANEL = (427, 320)  # most width and height of a sample that is shown, pixels
CHUNK = 16  # images that a worker looks at in one go


class Finding(NamedTuple):
    """What came of one image."""

    problems: list[Problem]
    objects: Objects | None  # None: the image cannot be read


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
            surveys[0].problems.extend(other_categories(*categories))
        return surveys

    def look_over(
        self, scenes: Scenes, split: str, problems: list[Problem], num_workers: int, started: float
    ) -> Survey:
        """All images, in worker processes; `problems` are those known already."""
        chosen = np.random.default_rng(self.seed).permutation(len(scenes))[: self.samples].tolist()
        looks = Looks(scenes, self.decode, frozenset(chosen))
        loader: Any = DataLoader(looks, batch_size=CHUNK, num_workers=num_workers, collate_fn=list)
        found = chain.from_iterable(loader)
        bar = track(found, split, len(scenes), console=Console(stderr=True), disable=not self.progress)
        findings: list[Finding] = list(bar)
        rate = len(scenes) / (time.perf_counter() - started) * 60 / max(num_workers, 1)
        problems = [*problems, *(problem for finding in findings for problem in finding.problems)]
        shown = sorted(index for index in chosen if is_sound(findings[index]))
        return Survey(
            split,
            len(scenes),
            list(dict.fromkeys(problems)),
            count([finding.objects for finding in findings if finding.objects is not None], scenes.categories),
            dict(panel(split, scenes[index], scenes.categories) for index in shown),
            rate,
        )


def opened_by(make: Callable[..., Scenes]) -> tuple[Scenes | None, list[Problem]]:
    """The scenes that a recipe makes, if it can, and what it complained of."""
    problems: list[Problem] = []
    try:
        return (make(report=problems.extend) if "report" in signature(make).parameters else make()), problems
    except DataError as error:
        return None, [*problems, *error.problems]


def is_sound(finding: Finding) -> bool:
    """Whether an image can be painted."""
    known = finding.objects is not None and bool((finding.objects.labels >= 0).all())
    return known and not any(problem.breaks for problem in finding.problems)


class Looks(Dataset[Finding]):
    """What comes of each image; those in `read` are decoded anyway."""

    def __init__(self, scenes: Scenes, decode: bool, read: frozenset[int]) -> None:
        self.scenes, self.decode, self.read = scenes, decode, read

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Finding:
        problems, objects = list(self.scenes.flaws(index)), self.scenes.described(index)
        if self.decode or objects is None or index in self.read:
            try:
                sample = self.scenes[index]
                objects = described(sample.truth)
                problems += [] if problems else sample_flaws(sample, self.scenes)
            except (ValueError, OSError) as error:
                refused = Problem(Kind.REFUSED, "", f"image {index}", str(error), "an image that can be read")
                problems += getattr(error, "problems", None) or [refused]
        return Finding(problems, objects)


def described(truth: Truth) -> Objects:
    """What a sample's annotations say, numbered as its map is."""
    columns = (truth.labels, truth.crowd, truth.areas)
    return Objects(np.arange(1, len(truth.labels) + 1), *(column.numpy() for column in columns))


def sample_flaws(sample: Sample, scenes: Scenes) -> Iterator[Problem]:
    """What contradicts itself in a sample, whatever it was read from."""
    truth, file, num_classes = sample.truth, sample.name, len(scenes.categories)
    number, size = len(truth.labels), (sample.image.shape[-2], sample.image.shape[-1])
    yield from other_size(Path(file), (truth.segments.shape[-2], truth.segments.shape[-1]), size, "as its image")
    areas = np.bincount(truth.segments.numpy().ravel(), minlength=number + 1)
    for label in {*truth.labels.tolist()} - {*range(-1, num_classes)}:  # -1: unknown, and said so on reading
        yield Problem(Kind.CATEGORY, file, "", f"has class {label}", f"0 to {num_classes - 1}")
    for id_ in range(number + 1, len(areas)):
        yield Problem(Kind.MASK_ONLY, file, f"segment {id_}", "has no class", f"segments up to {number}")
    known = truth.labels.numpy() >= 0
    for id_ in np.flatnonzero((areas[1 : number + 1] == 0) & known).tolist() if not scenes.covered else ():
        yield Problem(Kind.EMPTY, file, f"segment {id_ + 1}", "has a mask of 0 pixels", "a pixel or more")
    if not number:
        yield Problem(Kind.BARE, file, "", "has no object", "one")


def count(images: list[Objects], categories: list[Category]) -> list[dict[str, Any]]:
    """A row for each class: images that have it, and its objects by size; crowds apart, as they are not learnt."""
    empty = Objects(*(np.zeros(0, kind) for kind in (np.int64, np.int64, bool, np.float32)))
    labels, crowd, areas = (np.concatenate(column) for column in list(zip(empty, *images, strict=True))[1:])
    once = np.concatenate([np.unique(objects.labels) for objects in (empty, *images)])
    kinds = np.array(["small", "medium", "large", "unknown size", "crowd"])
    sizes = np.where(crowd, 4, np.where(~(areas > 0), 3, np.digitize(areas, (SMALL, MEDIUM))))
    return [
        {"class": category.name, "thing": category.isthing, "images": int((once == label).sum())}
        | {str(kind): int(((labels == label) & (sizes == n)).sum()) for n, kind in enumerate(kinds)}
        for label, category in enumerate(categories)
    ]


def panel(split: str, sample: Sample, categories: list[Category]) -> tuple[str, Image.Image]:
    """A sample under its segments, and its title."""
    photo = photo_of(sample.image, sample.image.shape[-2:])
    return f"{split}: {sample.name}", ImageOps.contain(paint(photo, true_segments(sample.truth), categories), PANEL)
