"""Scenes without those that have a flaw, and what is told of them before the first step."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import signature
from typing import Any

import numpy as np
import torch.distributed as dist

from src.data.checks.class_counts import odd
from src.data.checks.inspection import Finding, Looks, described, is_sound, look_at, pixels_of
from src.data.formats.annotations import Objects
from src.data.problems import DataError, Kind, Problem, Report, refuse
from src.data.scenes import Identity, Scenes
from src.data.targets import Sample, Truth

GLANCES = 64  # masks that are read before the first step, where nothing else tells what is in them


class Chosen(Scenes):
    """Some of other scenes."""

    def __init__(self, scenes: Scenes, indices: list[int]) -> None:
        self.scenes, self.indices = scenes, np.array(indices)
        self.categories, self.covered = scenes.categories, scenes.covered
        self.ignored, self.place = scenes.ignored, scenes.place

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.scenes[int(self.indices[index])]

    def described(self, index: int) -> Objects | None:
        return self.scenes.described(int(self.indices[index]))

    def annotated(self, index: int) -> Truth | None:
        return self.scenes.annotated(int(self.indices[index]))

    def identified(self, index: int) -> Identity | None:
        return self.scenes.identified(int(self.indices[index]))


def opened(make: Callable[..., Scenes], report: Report) -> Scenes:
    """The scenes that a recipe makes; what shows before a picture is read goes to `report`, if the recipe can tell."""
    return make(report=report) if "report" in signature(make).parameters else make()


def sound(scenes: Scenes, split: str, num_workers: int) -> tuple[Scenes, list[Problem], int]:
    """The scenes that have no flaw, the flaws of the others, and how many these are; every image is read for it.

    Raises DataError if none is left.
    """
    indices = list(range(len(scenes)))
    findings = shared(indices, lambda mine: look(scenes, mine, split, num_workers))
    kept = [index for index, finding in zip(indices, findings, strict=True) if is_sound(finding)]
    problems = [problem for finding in findings for problem in finding.problems]
    if not kept:
        wanted = "an image without (python -m src.validate_data lists them)"
        refuse([Problem(Kind.REFUSED, scenes.place, "", f"has a flaw in each of its {len(scenes)} images", wanted)])
    num_left_out = len(scenes) - len(kept)
    return (Chosen(scenes, kept) if num_left_out else scenes), problems, num_left_out


def look(scenes: Scenes, indices: list[int], split: str, num_workers: int) -> list[Finding]:
    """What comes of some images, with a bar where somebody watches."""
    looks = Looks(scenes, True, frozenset(), indices)
    return look_at(looks, num_workers, f"looking for flaws in {split}", sys.stderr.isatty())


def shared(indices: list[int], work: Callable[[list[int]], list[Any]]) -> list[Any]:
    """What comes of each index, every process doing its share of the work."""
    if not (dist.is_available() and dist.is_initialized()):
        return work(indices)
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    parts: list[Any] = [None] * num_ranks
    dist.all_gather_object(parts, work(indices[rank::num_ranks]))
    return [parts[index % num_ranks][index // num_ranks] for index in indices]


def glance(scenes: Scenes) -> Iterator[Problem]:
    """Warnings of what is in the images, as far as it shows in seconds; broken masks are told when they are read."""
    if not len(scenes):
        return
    if scenes.described(0) is not None:
        objects = [scenes.described(index) for index in range(len(scenes))]
        yield from odd(scenes, [one for one in objects if one is not None], [], whole=True)
        return
    indices = sorted({*np.linspace(0, len(scenes) - 1, GLANCES).round().astype(int).tolist()})
    truths = []
    with suppress(DataError):
        truths = [truth for truth in map(scenes.annotated, indices) if truth is not None]
    if truths:
        whole = len(truths) == len(scenes)
        yield from odd(scenes, [described(truth) for truth in truths], [pixels_of(truth) for truth in truths], whole)
