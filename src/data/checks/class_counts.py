"""Counts of each class in a set of images, and warnings about unusual counts."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from src.data.checks.inspection import Finding
from src.data.formats.annotations import Objects
from src.data.problems import Kind, Problem, first_few
from src.data.scenes import Scenes
from src.data.targets import Category

SMALL, MEDIUM = 32**2, 96**2  # pixels, limits of COCO's small and medium objects
MUCH = 0.3  # share of ignored pixels that is warned of
SIZES = ("small", "medium", "large", "unknown size", "crowd")


def joined(images: Sequence[Objects]) -> Objects:
    """Return all objects of a known class."""
    empty = Objects(*(np.zeros(0, kind) for kind in (np.int64, np.int64, bool, np.float32)))
    whole = Objects(*map(np.concatenate, zip(empty, *images, strict=True)))
    return Objects(*(column[whole.labels >= 0] for column in whole))


def count(images: Sequence[Objects], categories: Sequence[Category]) -> list[dict[str, Any]]:
    """Return a row per class: the number of images that show it, and of its objects by size; crowds are apart."""
    _, labels, crowd, areas = joined(images)
    once = np.concatenate([np.zeros(0, np.int64), *(np.unique(objects.labels) for objects in images)])  # per image
    sizes = np.select([crowd, ~(areas > 0)], [4, 3], np.digitize(areas, (SMALL, MEDIUM)))  # index into SIZES
    columns = {"images": once[once >= 0]} | {size: labels[sizes == n] for n, size in enumerate(SIZES)}
    numbers = {name: np.bincount(classes, minlength=len(categories)) for name, classes in columns.items()}
    return [
        {"class": category.name, "thing": category.isthing}
        | {name: int(by_class[label]) for name, by_class in numbers.items()}
        for label, category in enumerate(categories)
    ]


def unusual(scenes: Scenes, findings: Sequence[Finding], whole: bool) -> Iterator[Problem]:
    """Warn of classes without an object and of many ignored pixels, with the likely cause.

    `whole`: whether these are all images; in some of them, a rare class may be missing.
    """
    objects = [finding.objects for finding in findings if finding.objects is not None]
    known = joined(objects)
    seen = np.isin(range(len(scenes.categories)), known.labels[~known.crowd]).tolist()
    looked = f"{len(objects)} images" if whole else f"{len(objects)} images that were looked at"
    void, pixels = (sum(finding.pixels[n] for finding in findings) for n in (0, 1))
    share, ignored = void / max(pixels, 1) if scenes.ignored else 0, first_few(scenes.ignored)
    cause = ""
    if share:
        cause = (
            f"; {share:.1%} of the pixels have a value that is ignored, {ignored}: is that a class, as in masks of 0 "
            "and 255? Then list it, and leave it out of data.val.ignore"
        )
    if objects and not any(seen):
        expected = f"an object that is not a crowd{cause}"
        yield Problem(Kind.UNSCORED, scenes.place, "", f"has nothing to learn or to score in {looked}", expected)
    elif not all(seen) and (whole or sum(seen) == 1):
        found = f"has no object of {unseen(scenes.categories, seen)}, in {looked}"
        yield Problem(Kind.UNSEEN, scenes.place, "", found, f"some{cause}")
    if share > MUCH:
        found = f"has a value that is ignored, {ignored}, at {share:.0%} of the pixels of {looked}"
        yield Problem(Kind.IGNORED, scenes.place, "", found, "few of them; if one is a class, list it")


def unseen(categories: Sequence[Category], seen: Sequence[bool]) -> str:
    """Return the classes without an object as text, and a likely reason."""
    absent = [category for category, there in zip(categories, seen, strict=True) if not there]
    names = {category.name for category, there in zip(categories, seen, strict=True) if there}
    twin = next((category for category in absent if category.name in names), None)
    dummy = f" (another is called {twin.name} too: did a labelling tool add this one?)" if twin else ""
    listed = first_few([f"{category.name} ({category.id})" for category in absent])
    return f"{len(absent)} of {len(categories)} classes, {listed}{dummy}"
