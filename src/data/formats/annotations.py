"""A COCO JSON file as flat buffers.

Python objects are copied into every forked worker as their reference counts are touched, which for COCO's 118,287
training images is gigabytes; a few arrays and byte strings stay shared. Letters: I images, N objects of all images.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.data.formats.categories import categories_in
from src.data.formats.coco_file import Grouping, Groups, ImageId, images_in, panoptic
from src.data.formats.json_file import Entry, read_json
from src.data.formats.values import SIZES, part, put_right
from src.data.problems import Kind, Problem, Report, refuse, repeats

LONE = "surrogatepass"  # halves of characters, which JSON may hold and names of files too


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

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))


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
    repeat, annotations of images or categories that are not listed, values that mean nothing; so does what is read
    differently than it is written. Where it returns, the first of equal ids counts, and the label of an object with
    such a flaw is -1. Raises DataError for another layout.
    """

    def __init__(self, file: Path, group: Grouping, keep_empty: bool, report: Report = refuse) -> None:
        self.file = file
        document = read_json(file)
        self.categories = categories_in(document, file, {} if group is panoptic else {"isthing": 1}, report)
        images = images_in(document, file, report)
        report(repeats(file, "image", [image["id"] for image in images]))
        by_id = {image["id"]: image for image in reversed(images)}
        groups, problems = group(part(document, "annotations", file), by_id, file)
        report(problems)
        report(self._unlisted(set(groups) - set(by_id)))
        images = [by_id[id_] for id_ in sorted(by_id) if by_id[id_]["file_name"] is not None]  # else said on reading
        if not keep_empty:
            some = {id_ for id_, (_, objects) in groups.items() if not all(one["iscrowd"] for one in objects)}
            report(self._left_out(id_ for id_ in by_id if id_ not in some))
            images = [image for image in images if image["id"] in some]
        self._flatten(images, groups, report)

    def _flatten(self, images: list[Entry], groups: Groups, report: Report) -> None:
        ids = [image["id"] for image in images]
        self.image_ids = np.array(numbers(ids), np.int64)  # (I,)
        self.sizes = np.array([(i["height"], i["width"]) for i in images], np.int32)  # (I, 2), 0 unknown
        self.image_names = ByteRows(image["file_name"].encode(errors=LONE) for image in images)
        marked = [groups.get(id_, ("", [])) for id_ in ids]
        self.mask_names = ByteRows(name.encode(errors=LONE) for name, _ in marked)
        counts = [len(objects) for _, objects in marked]
        self.starts = np.cumsum([0, *counts])  # (I + 1,) into the objects of all images
        flat = [one for _, objects in marked for one in objects]
        report(self._unknown(flat, [id_ for id_, count in zip(ids, counts, strict=True) for _ in range(count)]))
        self.objects = Objects(
            np.array([one["id"] for one in flat], np.int64),
            self._labels(flat),
            np.array([one["iscrowd"] for one in flat], bool),
            np.array([one["area"] for one in flat], np.float32),
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

    def _unlisted(self, image_ids: set[ImageId]) -> Iterator[Problem]:
        for id_ in sorted(image_ids, key=str):
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
        known = f"one of the file's {len(ids)}, from {min(ids)} to {max(ids)}"
        for one, image_id in zip(objects, owners, strict=True):
            if one["category_id"] not in ids and one["category_id"] is not None:  # which is said already
                where = f"image {image_id}, object {one['id']}"
                yield Problem(Kind.CATEGORY, str(self.file), where, f"has category_id {one['category_id']}", known)


def numbers(ids: list[ImageId]) -> Iterable[ImageId]:
    """The ids; where they are names, as Cityscapes has, their places: metrics and pycocotools want whole numbers."""
    return range(len(ids)) if ids and isinstance(ids[0], str) else ids


def image_sizes(file: Path) -> list[tuple[int, int]]:
    """(height, width) of every image that a COCO JSON file lists; its pictures need not be there.

    Raises FileNotFoundError, or ValueError for what is not such a file or does not say.
    """
    images = part(read_json(file), "images", file)
    refuse(put_right(images, SIZES, file, "image"))  # without need of ids and names
    sizes = [(image["height"], image["width"]) for image in images]
    if not sizes or not all(map(all, sizes)):
        raise ValueError(f"{file}: expected images with height and width from 1, has {sizes[:3] or 'none'}")
    return sizes
