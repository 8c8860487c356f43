"""A COCO JSON file as flat buffers.

Python objects are copied into every forked worker as their reference counts are touched, which for COCO's 118,287
training images is gigabytes; a few arrays and byte strings stay shared. Letters: I images, N objects of all images.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.data.categories import listed
from src.data.documents import Entry, read_json
from src.data.problems import DataError, Kind, Problem, Report, refuse, repeats
from src.data.targets import Category

ImageId = int | str
Groups = dict[ImageId, tuple[str, list[Entry]]]  # image id to its mask file and its objects
Grouping = Callable[[list[Entry], Path], tuple[Groups, list[Problem]]]


class ByteRows:
    """Many byte strings in one buffer."""

    def __init__(self, rows: Iterable[bytes]) -> None:
        rows = list(rows)
        self.starts = np.cumsum([0, *map(len, rows)])
        self.buffer = b"".join(rows)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> bytes:
        return self.buffer[self.starts[index] : self.starts[index + 1]]


class Objects(NamedTuple):
    """What is annotated in one image, or in all images one after the other."""

    ids: np.ndarray  # (N,) int64, as the file numbers segments or annotations
    labels: np.ndarray  # (N,) int64, class index
    crowd: np.ndarray  # (N,) bool
    areas: np.ndarray  # (N,) float32, NaN where the file does not say


class Annotations:
    """Images in the order of their ids, and the objects in each.

    Categories of instances files are things unless they say otherwise; panoptic files must say.
    `keep_empty` keeps images without an object, or with crowds only. What contradicts itself goes to `report`: ids that
    repeat, annotations of images or categories that are not listed. Where it returns, the first of equal ids counts,
    and the label of an unknown category is -1. Raises DataError for another layout.
    """

    def __init__(self, file: Path, group: Grouping, keep_empty: bool, report: Report = refuse) -> None:
        self.file = file
        document = read_json(file)
        try:
            self._flatten(document, group, keep_empty, report)
        except DataError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
            layout = f"the layout of COCO's {group.__name__} files"
            refuse([Problem(Kind.UNREADABLE, str(file), "", f"is not understood ({error!r})", layout)])

    def _flatten(self, document: Entry, group: Grouping, keep_empty: bool, report: Report) -> None:
        report(repeats(self.file, "category", [entry["id"] for entry in document["categories"]]))
        self.categories = self._categories(document["categories"], {} if group is panoptic else {"isthing": 1})
        groups, problems = group(document["annotations"], self.file)
        report(problems)
        report(repeats(self.file, "image", [image["id"] for image in document["images"]]))
        by_id = {image["id"]: image for image in reversed(document["images"])}
        report(self._unlisted(set(groups) - set(by_id)))
        images = [by_id[id_] for id_ in sorted(by_id)]
        if not keep_empty:
            some = {id_ for id_, (_, objects) in groups.items() if not all(one.get("iscrowd") for one in objects)}
            report(self._left_out(id_ for id_ in by_id if id_ not in some))
            images = [image for image in images if image["id"] in some]

        ids = [image["id"] for image in images]
        self.image_ids = np.array(numbers(ids), np.int64)  # (I,)
        self.sizes = np.array([(i.get("height", 0), i.get("width", 0)) for i in images], np.int32)  # (I, 2), 0 unknown
        self.image_names = ByteRows(image["file_name"].encode() for image in images)
        marked = [groups.get(image["id"], ("", [])) for image in images]
        self.mask_names = ByteRows(name.encode() for name, _ in marked)
        counts = [len(objects) for _, objects in marked]
        self.starts = np.cumsum([0, *counts])  # (I + 1,) into the objects of all images
        flat = [one for _, objects in marked for one in objects]
        report(self._unknown(flat, [id_ for id_, count in zip(ids, counts, strict=True) for _ in range(count)]))
        self.objects = Objects(
            np.array([one["id"] for one in flat], np.int64),
            self._labels(flat),
            np.array([bool(one.get("iscrowd")) for one in flat], bool),
            np.array([one.get("area", np.nan) for one in flat], np.float32),
        )
        self.outlines = ByteRows(json.dumps(o["segmentation"]).encode() if "segmentation" in o else b"" for o in flat)

    def __len__(self) -> int:
        return len(self.image_ids)

    def of(self, index: int) -> Objects:
        """The objects of one image."""
        span = slice(self.starts[index], self.starts[index + 1])
        return Objects(*(column[span] for column in self.objects))

    def outlines_of(self, index: int) -> list[Any]:
        """The polygons or run lengths of each object of one image."""
        return [json.loads(self.outlines[n]) for n in range(self.starts[index], self.starts[index + 1])]

    def _categories(self, entries: list[Entry], default: Entry) -> list[Category]:
        """Categories by id."""
        by_id = {entry["id"]: entry for entry in reversed(entries)}
        return listed([*by_id.values()], default)

    def _unlisted(self, image_ids: set[ImageId]) -> Iterator[Problem]:
        for id_ in sorted(image_ids):
            yield Problem(
                Kind.UNLISTED, str(self.file), f"image {id_}", "is annotated, not listed", "it among the images"
            )

    def _left_out(self, image_ids: Iterable[ImageId]) -> Iterator[Problem]:
        for id_ in image_ids:
            yield Problem(
                Kind.BARE, str(self.file), f"image {id_}", "has none to learn, so is left out", "one, no crowd"
            )

    def _labels(self, objects: list[Entry]) -> np.ndarray:
        index_of = {category.id: index for index, category in enumerate(self.categories)}
        return np.array([index_of.get(one["category_id"], -1) for one in objects], np.int64)

    def _unknown(self, objects: list[Entry], owners: list[ImageId]) -> Iterator[Problem]:
        ids = {category.id for category in self.categories}
        known = f"one of the file's {len(ids)}, from {min(ids)} to {max(ids)}" if ids else "categories in the file"
        for one, image_id in zip(objects, owners, strict=True):
            if one["category_id"] not in ids:
                where = f"image {image_id}, object {one['id']}"
                yield Problem(Kind.CATEGORY, str(self.file), where, f"has category_id {one['category_id']}", known)


def numbers(ids: list[ImageId]) -> Iterable[ImageId]:
    """The ids; where they are names, as Cityscapes has, their places: metrics and pycocotools want whole numbers."""
    return range(len(ids)) if ids and isinstance(ids[0], str) else ids


def panoptic(annotations: list[Entry], file: Path) -> tuple[Groups, list[Problem]]:
    """One entry per image, which names its mask and lists its segments; ids that repeat."""
    groups: Groups = {}
    problems = list(repeats(file, "annotation of image", [entry["image_id"] for entry in annotations]))
    for entry in reversed(annotations):
        segments = {one["id"]: one for one in reversed(entry["segments_info"])}
        if len(segments) < len(entry["segments_info"]):
            ids = [one["id"] for one in entry["segments_info"]]
            problems += repeats(file, f"image {entry['image_id']}, segment", ids)
        groups[entry["image_id"]] = (entry["file_name"], [*reversed(segments.values())])
    return groups, problems


def instances(annotations: list[Entry], file: Path) -> tuple[Groups, list[Problem]]:
    """One entry per object, with its outline; ids that repeat, and objects without an outline."""
    groups: Groups = {}
    problems = list(repeats(file, "annotation", [entry["id"] for entry in annotations]))
    for entry in annotations:
        if not entry["segmentation"]:
            problems.append(no_outline(file, entry["id"]))
        groups.setdefault(entry["image_id"], ("", []))[1].append(entry)
    return groups, problems


def no_outline(file: Path, id_: int) -> Problem:
    said = ("has an empty segmentation", "polygons or run lengths")
    return Problem(Kind.OUTLINE, str(file), f"annotation {id_}", *said)


def image_sizes(file: Path) -> list[tuple[int, int]]:
    """(height, width) of every image that a COCO JSON file lists; its pictures need not be there.

    Raises FileNotFoundError, or ValueError for what is not such a file or does not say.
    """
    document = read_json(file)
    try:
        sizes = [(image["height"], image["width"]) for image in document["images"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: expected COCO's layout, images with height and width ({error!r})") from error
    if not sizes or any(type(side) is not int or side < 1 for size in sizes for side in size):
        raise ValueError(f"{file}: expected images with height and width from 1, has {sizes[:3] or 'none'}")
    return sizes
