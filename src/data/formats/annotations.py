"""A COCO JSON file as flat buffers.

Python objects are copied into every forked worker as their reference counts change, which for COCO's 118,287
training images is gigabytes; a few arrays and buffers stay shared. Letters: I images, N objects of all images.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.data.formats.categories import categories_in
from src.data.formats.coco_file import Groups, ImageId, Layout, group_annotations, images_in
from src.data.formats.json_file import Entry, entries_of, read_json
from src.data.formats.values import SIZES, normalize
from src.data.problems import Kind, Problem, Report, refuse

LONE = "surrogatepass"  # half characters, which JSON and file names may contain


class TextRows:
    """Many texts in one buffer."""

    def __init__(self, rows: Iterable[str]) -> None:
        encoded = [row.encode(errors=LONE) for row in rows]
        self.starts = np.cumsum([0, *map(len, encoded)])
        self.buffer = b"".join(encoded)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> str:
        return self.buffer[self.starts[index] : self.starts[index + 1]].decode(errors=LONE)

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


class Objects(NamedTuple):
    """The annotated objects of one image, or of all images one after the other."""

    ids: np.ndarray  # (N,) int64, as the file numbers segments or annotations
    labels: np.ndarray  # (N,) int64, class index
    crowd: np.ndarray  # (N,) bool
    areas: np.ndarray  # (N,) float32, NaN if the file gives none


class Annotations:
    """Images in the order of their ids, and the objects in each.

    Categories of instances files are things unless the file says otherwise; panoptic files must say. `keep_empty` keeps
    images without an object, or with crowds only. Problems go to `report`: ids that repeat, annotations of images or
    categories that are not listed, values without a meaning, and values that are read differently than written. If
    `report` returns, the first of equal ids counts, and the label of an object with such a problem is -1. Raises
    DataError for another layout.
    """

    def __init__(self, file: Path, layout: Layout, keep_empty: bool, report: Report = refuse) -> None:
        self.file = file
        document = read_json(file)
        isthing = 1 if layout == "instances" else None
        self.categories = categories_in(document, file, report, isthing)
        by_id = images_in(document, file, report)
        groups = group_annotations(document, layout, by_id, file, report)
        report(self._unlisted(groups.keys() - by_id.keys()))
        images = self._ordered(by_id, groups, keep_empty, report)
        report(self._unknown_categories(images, groups))
        self._flatten(images, groups)

    def _ordered(self, by_id: dict[ImageId, Entry], groups: Groups, keep_empty: bool, report: Report) -> list[Entry]:
        """The images to read, by id; those without a file name are reported already."""
        ids = sorted(by_id)
        if not keep_empty:
            learnable = {
                id_ for id_, (_, objects) in groups.items() if not all(object_["iscrowd"] for object_ in objects)
            }
            report(self._left_out(id_ for id_ in by_id if id_ not in learnable))
            ids = [id_ for id_ in ids if id_ in learnable]
        return [by_id[id_] for id_ in ids if by_id[id_]["file_name"] is not None]

    def _flatten(self, images: list[Entry], groups: Groups) -> None:
        """Keep images and objects as arrays and bytes."""
        ids = [image["id"] for image in images]
        masks_and_objects = [groups.get(id_, ("", [])) for id_ in ids]
        objects = [object_ for _, own in masks_and_objects for object_ in own]
        index_of = {category.id: index for index, category in enumerate(self.categories)}

        self.image_ids = np.array(whole_numbers(ids), np.int64)  # (I,)
        self.sizes = np.array([(i["height"], i["width"]) for i in images], np.int32)  # (I, 2), 0 unknown
        self.image_names = TextRows(image["file_name"] for image in images)
        self.mask_names = TextRows(mask for mask, _ in masks_and_objects)
        self.starts = np.cumsum([0, *(len(own) for _, own in masks_and_objects)])  # (I + 1,) into the objects
        self.objects = Objects(
            np.array([object_["id"] for object_ in objects], np.int64),
            np.array([index_of.get(object_["category_id"], -1) for object_ in objects], np.int64),
            np.array([object_["iscrowd"] for object_ in objects], bool),
            np.array([object_["area"] for object_ in objects], np.float32),
        )
        self.outlines = TextRows(outline_text(object_) for object_ in objects)

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
            found, expected = "is annotated, not listed", "it among the images"
            yield Problem(Kind.UNLISTED, str(self.file), f"image {id_}", found, expected)

    def _left_out(self, image_ids: Iterable[ImageId]) -> Iterator[Problem]:
        for id_ in image_ids:
            found = "has no object to learn, so is left out"
            yield Problem(Kind.BARE, str(self.file), f"image {id_}", found, "one that is not a crowd")

    def _unknown_categories(self, images: list[Entry], groups: Groups) -> Iterator[Problem]:
        """Objects of a category that is not listed; None is a value that is reported already."""
        ids = {category.id for category in self.categories}
        expected = f"one of the file's {len(ids)}, from {min(ids)} to {max(ids)}"
        known = {*ids, None}
        for image in images:
            for object_ in groups.get(image["id"], ("", []))[1]:
                if object_["category_id"] not in known:
                    where = f"image {image['id']}, object {object_['id']}"
                    found = f"has category_id {object_['category_id']}"
                    yield Problem(Kind.CATEGORY, str(self.file), where, found, expected)


def outline_text(object_: Entry) -> str:
    """The outline of an object as JSON; panoptic segments have none."""
    return json.dumps(object_["segmentation"]) if "segmentation" in object_ else ""


def whole_numbers(ids: list[ImageId]) -> Iterable[ImageId]:
    """The ids, or their places if they are names, as Cityscapes has: metrics and pycocotools want whole numbers."""
    return range(len(ids)) if ids and isinstance(ids[0], str) else ids


def image_sizes(file: Path) -> list[tuple[int, int]]:
    """(height, width) of every image that a COCO JSON file lists; the image files themselves are not needed.

    Raises FileNotFoundError, or ValueError for another file or one that does not give all sizes.
    """
    images = entries_of(read_json(file), "images", file)
    refuse(normalize(images, SIZES, file, "image"))
    sizes = [(image["height"], image["width"]) for image in images]
    if not sizes or not all(height and width for height, width in sizes):
        raise ValueError(f"{file}: expected images with height and width from 1, has {sizes[:3] or 'none'}")
    return sizes
