"""Images looked at one by one: what is wrong with each, and what is annotated in it."""

from collections.abc import Iterator, Sequence
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

CHUNK = 16  # images that a worker looks at in one go


class Finding(NamedTuple):
    """What came of one image."""

    problems: list[Problem]
    objects: Objects | None  # None: the image cannot be read
    pixels: tuple[int, int] = (0, 0)  # of nothing, and all; of an image that was not read, none


def look_at(looks: "Looks", num_workers: int, title: str, progress: bool) -> list[Finding]:
    """What came of every image, in order, by worker processes."""
    loader: Any = DataLoader(
        looks,
        batch_size=CHUNK,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=leave_signals_to_parent,
    )
    found = chain.from_iterable(loader)
    return list(track(found, title, len(looks), console=Console(stderr=True), disable=not progress))


def is_sound(finding: Finding) -> bool:
    """Whether an image can be painted."""
    known = finding.objects is not None and bool((finding.objects.labels >= 0).all())
    return known and not any(problem.breaks for problem in finding.problems)


class Looks(Dataset[Finding]):
    """What comes of each image, or of some by their indices; those in `read` are decoded anyway."""

    def __init__(
        self, scenes: Scenes, decode: bool, read: frozenset[int], indices: Sequence[int] | None = None
    ) -> None:
        self.scenes, self.decode, self.read = scenes, decode, read
        self.indices = range(len(scenes)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Finding:
        index = self.indices[place]
        problems, objects, pixels = list(self.scenes.problems_of(index)), self.scenes.described(index), (0, 0)
        if self.decode or objects is None or index in self.read:
            try:
                sample = self.scenes[index]
                objects, pixels = described(sample.truth), pixels_of(sample.truth)
                problems += [] if problems else sample_flaws(sample, self.scenes)
            except (ValueError, OSError) as error:
                refused = Problem(Kind.REFUSED, "", f"image {index}", str(error), "an image that can be read")
                problems += getattr(error, "problems", None) or [refused]
        return Finding(problems, objects, pixels)


def described(truth: Truth) -> Objects:
    """What a sample's annotations say, numbered as its map is."""
    columns = (truth.labels, truth.crowd, truth.areas)
    return Objects(np.arange(1, len(truth.labels) + 1), *(column.numpy() for column in columns))


def pixels_of(truth: Truth) -> tuple[int, int]:
    """How many pixels of a truth are nothing, and how many there are."""
    return int((truth.segments == 0).all(0).sum()), truth.segments[0].numel()


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
