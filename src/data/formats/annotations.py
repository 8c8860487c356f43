"""A COCO JSON file as flat buffers.

Python objects are copied into every forked worker as their reference counts change, which for COCO's 118,287
training images is gigabytes; a few arrays and buffers stay shared. Letters: I images, N objects of all images.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.data.formats.boxes import corners_of
from src.data.formats.categories import categories_in
from src.data.formats.coco_file import Layout, group_annotations, images_in
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
    images without an object, or with crowds only. Objects of instances files need masks, or with `masks=False` a box or
    a mask. Problems go to `report`: repeated ids, annotations of images or
    categories that are not listed, values without a meaning, and values that are read differently than written. If
    `report` returns, the first of equal ids counts, and the label of an object with such a problem is -1. Raises
    DataError for another layout.
    """

    def __init__(
        self, file: Path, layout: Layout, keep_empty: bool, report: Report = refuse, masks: bool = True
    ) -> None:
        self.file = file
        document = read_json(file)
        self.categories = categories_in(document, file, report, isthing=1 if layout == "instances" else None)
        by_id = images_in(document, file, report)
        groups = group_annotations(document, layout, by_id, file, report, masks)
        unlisted = sorted(groups.keys() - by_id.keys(), key=str)
        report(
            self._problem(Kind.UNLISTED, id_, "is annotated but not listed", "an entry in 'images'") for id_ in unlisted
        )
        for id_, image in by_id.items():
            image["mask"], image["objects"] = groups.get(id_, ("", []))
        if not keep_empty:
            crowds = [id_ for id_, image in by_id.items() if all(object_["iscrowd"] for object_ in image["objects"])]
            found, expected = "has no object to learn, so is left out", "one that is not a crowd"
            report(self._problem(Kind.BARE, id_, found, expected) for id_ in crowds)
            by_id = {id_: by_id[id_] for id_ in by_id.keys() - crowds}
        images = [
            by_id[id_] for id_ in sorted(by_id) if by_id[id_]["file_name"] is not None
        ]  # None is reported already
        report(self._unknown_categories(images))
        self._flatten(images)

    def _problem(self, kind: Kind, image_id: object, found: str, expected: str) -> Problem:
        return Problem(kind, str(self.file), f"image {image_id}", found, expected)

    def _unknown_categories(self, images: list[Entry]) -> Iterator[Problem]:
        """Objects of a category that is not listed; None is a value that is reported already."""
        ids = {category.id for category in self.categories}
        expected = f"one of the file's {len(ids)}, from {min(ids)} to {max(ids)}"
        known = {*ids, None}
        for image in images:
            for object_ in image["objects"]:
                if object_["category_id"] not in known:
                    where = f"{image['id']}, object {object_['id']}"
                    yield self._problem(Kind.CATEGORY, where, f"has category_id {object_['category_id']}", expected)

    def _flatten(self, images: list[Entry]) -> None:
        """Keep images and objects as arrays and bytes."""
        ids = [image["id"] for image in images]
        if ids and isinstance(ids[0], str):  # names, as in Cityscapes; metrics and pycocotools want whole numbers
            ids = [*range(len(ids))]
        objects = [object_ for image in images for object_ in image["objects"]]
        index_of = {category.id: index for index, category in enumerate(self.categories)}

        self.image_ids = np.array(ids, np.int64)  # (I,)
        self.sizes = np.array([(i["height"], i["width"]) for i in images], np.int32)  # (I, 2), 0 unknown
        self.image_names = TextRows(image["file_name"] for image in images)
        self.mask_names = TextRows(image["mask"] for image in images)
        self.starts = np.cumsum([0, *(len(image["objects"]) for image in images)])  # (I + 1,) into the objects
        self.objects = Objects(
            np.array([object_["id"] for object_ in objects], np.int64),
            np.array([index_of.get(object_["category_id"], -1) for object_ in objects], np.int64),
            np.array([object_["iscrowd"] for object_ in objects], bool),
            np.array([object_["area"] for object_ in objects], np.float32),
        )
        # panoptic segments have no outline, and their boxes are not read
        self.boxes = corners_of([o if "segmentation" in o else {} for o in objects])  # (N, 4)
        self.outlines = TextRows(json.dumps(o["segmentation"]) if "segmentation" in o else "" for o in objects)

    def __len__(self) -> int:
        return len(self.image_ids)

    def size_of(self, index: int) -> tuple[int, int] | None:
        """(height, width) of an image; None if the file does not give both."""
        height, width = self.sizes[index].tolist()
        return (height, width) if height and width else None

    def of(self, index: int) -> Objects:
        """The objects of one image."""
        span = slice(self.starts[index], self.starts[index + 1])
        return Objects(*(column[span] for column in self.objects))

    def boxes_of(self, index: int) -> np.ndarray:
        """Left, top, right and bottom of the objects of one image, NaN where not annotated: (N, 4) float32."""
        return self.boxes[self.starts[index] : self.starts[index + 1]]

    def segmentations_of(self, index: int) -> list[Any]:
        """The polygons or run lengths of each object of one image; None for an object that has none."""
        return [json.loads(self.outlines[n]) for n in range(self.starts[index], self.starts[index + 1])]


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
