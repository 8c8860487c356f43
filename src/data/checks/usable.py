"""What happens to scenes before the first step: those with problems are left out, and the user is warned."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import signature

import numpy as np
import torch.distributed as dist

from src.data.checks.class_counts import unusual
from src.data.checks.inspection import Finding, Looks, finding_in, inspect_all
from src.data.formats.annotations import Objects
from src.data.problems import DataError, Kind, Problem, Report, fail
from src.data.scenes import Identity, Scenes
from src.data.targets import Sample, Truth

GLANCES = 64  # masks that are read before the first step if objects are known from masks only


class Chosen(Scenes):
    """A subset of other scenes."""

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


def opened(make: Callable[..., Scenes], report: Report, segmentation: str) -> Scenes:
    """Make scenes for a task; problems found before an image is read go to `report`.

    `make` is told both if it takes such arguments; boxes need no masks.
    """
    told = {"report": report, "masks": segmentation != "boxes"}
    return make(**{name: value for name, value in told.items() if name in signature(make).parameters})


def sound(scenes: Scenes, split: str, num_workers: int) -> tuple[Scenes, list[Problem], int]:
    """Return the scenes without problems that break training, all problems, and how many scenes are left out.

    Decodes every image; distributed processes share the work. Raises DataError if no scene is left.
    """
    distributed = dist.is_available() and dist.is_initialized()
    rank, num_ranks = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
    indices = range(len(scenes))
    looks = Looks(scenes, decoded=indices, indices=indices[rank::num_ranks])
    parts = [inspect_all(looks, num_workers, f"looking for flaws in {split}", progress=sys.stderr.isatty())]
    if distributed:
        mine, parts = parts[0], [[]] * num_ranks
        dist.all_gather_object(parts, mine)
    findings = [parts[index % num_ranks][index // num_ranks] for index in indices]
    kept = [index for index in indices if findings[index].is_sound]
    if not kept:
        expected = "an image without one (python -m src.validate_data lists them)"
        fail(Kind.REFUSED, scenes.place, f"has a flaw in each of its {len(scenes)} images", expected)
    num_left_out = len(scenes) - len(kept)
    problems = [problem for finding in findings for problem in finding.problems]
    return (Chosen(scenes, kept) if num_left_out else scenes), problems, num_left_out


def glance(scenes: Scenes) -> Iterator[Problem]:
    """Warn of unusual class counts, as far as seconds of reading show them; broken masks are reported when read."""
    if not len(scenes):
        return
    if scenes.described(0) is not None:
        findings = [Finding([], scenes.described(index)) for index in range(len(scenes))]
    else:
        indices = sorted({*np.linspace(0, len(scenes) - 1, GLANCES).round().astype(int).tolist()})
        findings = []
        with suppress(DataError):
            findings = [finding_in(truth) for truth in map(scenes.annotated, indices) if truth is not None]
    if findings:
        yield from unusual(scenes, findings, whole=len(findings) == len(scenes))
