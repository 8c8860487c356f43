"""How often each class comes up in images that were looked at, and what is odd about that."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from src.data.formats.annotations import Objects
from src.data.problems import Kind, Problem, first_few
from src.data.scenes import Scenes
from src.data.targets import Category

SMALL, MEDIUM = 32**2, 96**2  # pixels, as COCO tells small from medium and large
MUCH = 0.3  # share of pixels that are ignored
SIZES = ("small", "medium", "large", "unknown size")


def joined(images: Sequence[Objects]) -> tuple[np.ndarray, ...]:
    """Classes, crowds and areas of all objects, (N,) each; those of no class are left out."""
    empty = Objects(*(np.zeros(0, kind) for kind in (np.int64, np.int64, bool, np.float32)))
    columns = [np.concatenate(column) for column in list(zip(empty, *images, strict=True))[1:]]
    return tuple(column[columns[0] >= 0] for column in columns)


def count(images: Sequence[Objects], categories: Sequence[Category]) -> list[dict[str, Any]]:
    """A row for each class: images that have it, and its objects by size; crowds apart, as they are not learnt."""
    labels, crowd, areas = joined(images)
    once = np.concatenate([np.zeros(0, np.int64), *(np.unique(objects.labels) for objects in images)])
    sizes = np.where(crowd, 4, np.where(~(areas > 0), 3, np.digitize(areas, (SMALL, MEDIUM))))
    columns = {"images": once[once >= 0]} | {kind: labels[sizes == n] for n, kind in enumerate((*SIZES, "crowd"))}
    numbers = {name: np.bincount(classes, minlength=len(categories)) for name, classes in columns.items()}
    return [
        {
            "class": category.name,
            "thing": category.isthing,
            **{name: int(many[label]) for name, many in numbers.items()},
        }
        for label, category in enumerate(categories)
    ]


def odd(scenes: Scenes, images: Sequence[Objects], pixels: Sequence[tuple[int, int]], whole: bool) -> Iterator[Problem]:
    """What is odd about the objects of some images: warnings, with the likely cause.

    Args:
        pixels: of each image, those of nothing and all; none of images that were not read.
        whole: whether these are all images; of some, a class that is rare may be missing.
    """
    labels, crowd, _ = joined(images)
    seen = np.isin(range(len(scenes.categories)), labels[~crowd]).tolist()
    looked = f"{len(images)} images" if whole else f"{len(images)} images that were looked at"
    share = sum(nothing for nothing, _ in pixels) / max(sum(every for _, every in pixels), 1) if scenes.ignored else 0
    cause = ignored_values(scenes.ignored, share) if share else ""
    if images and not any(seen):
        expected = f"an object that is no crowd{cause}"
        yield Problem(Kind.UNSCORED, scenes.place, "", f"has nothing to learn or to score in {looked}", expected)
    elif not all(seen) and (whole or sum(seen) == 1):
        found = f"has no object of {unseen(scenes.categories, seen)}, in {looked}"
        yield Problem(Kind.UNSEEN, scenes.place, "", found, f"some{cause}")
    if share > MUCH:
        found = f"has a value that is ignored, {first_few(scenes.ignored)}, at {share:.0%} of the pixels of {looked}"
        yield Problem(Kind.IGNORED, scenes.place, "", found, "few of them; if one is a class, list it")


def ignored_values(values: Sequence[int], share: float) -> str:
    """That what is missing may be what is ignored."""
    return (
        f"; {share:.1%} of the pixels have a value that is ignored, {first_few(values)}: is that a class, as in masks "
        "of 0 and 255? Then list it, and leave it out of data.val.ignore"
    )


def unseen(categories: Sequence[Category], seen: Sequence[bool]) -> str:
    """The classes that never come up, and a likely reason."""
    absent = [category for category, there in zip(categories, seen, strict=True) if not there]
    names = {category.name for category, there in zip(categories, seen, strict=True) if there}
    twin = next((category for category in absent if category.name in names), None)
    dummy = f" (another is called {twin.name} too: did a labelling tool add this one?)" if twin else ""
    listed = first_few([f"{category.name} ({category.id})" for category in absent])
    return f"{len(absent)} of {len(categories)} classes, {listed}{dummy}"
