"""Inspect images one by one: the problems of each, and its annotated objects."""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from src.data.formats.annotations import Objects
from src.data.formats.images import other_size
from src.data.problems import Kind, Problem
from src.data.scenes import Scenes
from src.data.targets import Sample, Truth
from src.system.signals import leave_signals_to_parent

CHUNK = 16  # images that a worker inspects at a time


class Finding(NamedTuple):
    """What an inspection found in one image."""

    problems: list[Problem]
    objects: Objects | None  # None: the image cannot be read
    pixels: tuple[int, int] = (0, 0)  # void, and all; 0 of an image that was not decoded

    @property
    def is_sound(self) -> bool:
        """Whether an image can be used: it is read, its classes are known and no problem breaks training."""
        known = self.objects is not None and bool((self.objects.labels >= 0).all())
        return known and not any(problem.breaks for problem in self.problems)


class Looks(Dataset[Finding]):
    """The findings of images, by their indices (all by default); those in `decoded` are always decoded."""

    def __init__(self, scenes: Scenes, decoded: Collection[int], indices: Sequence[int] | None = None) -> None:
        self.scenes, self.decoded = scenes, decoded
        self.indices = range(len(scenes)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Finding:
        index = self.indices[place]
        finding = Finding(list(self.scenes.problems_of(index)), self.scenes.described(index))
        if finding.objects is not None and index not in self.decoded:
            return finding
        problems = finding.problems
        try:
            sample = self.scenes[index]
            finding = finding_in(sample.truth)
            return finding._replace(problems=problems or [*sample_flaws(sample, self.scenes)])
        except (ValueError, OSError) as error:
            refused = Problem(Kind.REFUSED, "", f"image {index}", str(error), "an image that can be read")
            return finding._replace(problems=problems + (getattr(error, "problems", None) or [refused]))


def finding_in(truth: Truth) -> Finding:
    """Return the finding of a truth: its segments as objects, numbered as in its map, and its pixels."""
    columns = (truth.labels, truth.crowd, truth.areas)
    objects = Objects(np.arange(1, len(truth.labels) + 1), *(column.numpy() for column in columns))
    return Finding([], objects, (int((truth.segments == 0).all(0).sum()), truth.segments[0].numel()))


def sample_flaws(sample: Sample, scenes: Scenes) -> Iterator[Problem]:
    """Report contradictions within a sample, whatever file format it was read from."""
    truth, file, num_classes = sample.truth, sample.name, len(scenes.categories)
    number, size = len(truth.labels), (sample.image.shape[-2], sample.image.shape[-1])
    yield from other_size(Path(file), (truth.segments.shape[-2], truth.segments.shape[-1]), size, "as its image")
    areas = np.bincount(truth.segments.numpy().ravel(), minlength=number + 1)
    for label in {*truth.labels.tolist()} - {*range(-1, num_classes)}:  # -1: unknown, which is reported on reading
        yield Problem(Kind.CATEGORY, file, "", f"has class {label}", f"0 to {num_classes - 1}")
    for id_ in range(number + 1, len(areas)):
        yield Problem(Kind.MASK_ONLY, file, f"segment {id_}", "has no class", f"segments up to {number}")
    known = truth.labels.numpy() >= 0
    for id_ in np.flatnonzero((areas[1 : number + 1] == 0) & known).tolist() if not scenes.covered else ():
        yield Problem(Kind.EMPTY, file, f"segment {id_ + 1}", "has a mask of 0 pixels", "a pixel or more")
    if not number:
        yield Problem(Kind.BARE, file, "", "has no object", "one")


def inspect_all(looks: Looks, num_workers: int, title: str, progress: bool) -> list[Finding]:
    """Return the findings of all images, in order; worker processes do the work."""
    loader: Any = DataLoader(
        looks,
        batch_size=CHUNK,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=leave_signals_to_parent,
    )
    found = chain.from_iterable(loader)
    return list(track(found, title, len(looks), console=Console(stderr=True), disable=not progress))
