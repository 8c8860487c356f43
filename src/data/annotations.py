"""A COCO JSON file as flat buffers.

Python objects are copied into every forked worker as their reference counts are touched, which for COCO's 118,287
training images is gigabytes; a few arrays and byte strings stay shared. Letters: I images, N objects of all images.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.data.categories import listed
from src.data.documents import Entry, read_json
from src.data.targets import Category

ImageId = int | str
Groups = dict[ImageId, tuple[str, list[Entry]]]  # image id to its mask file and its objects
Grouping = Callable[[list[Entry]], Groups]


class ByteRows:
    """Many byte strings in one buffer."""

    def __init__(self, rows: Iterable[bytes]) -> None:
        rows = list(rows)
        self.starts = np.cumsum([0, *map(len, rows)])
        self.buffer = b"".join(rows)

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
    `keep_empty` keeps images without an object, or with crowds only. Raises ValueError for what contradicts itself:
    ids that repeat, annotations of images or categories that are not listed.
    """

    def __init__(self, file: Path, group: Grouping, keep_empty: bool) -> None:
        self.file = file
        document = read_json(file)
        try:
            self._flatten(document, group, keep_empty)
        except (KeyError, TypeError) as error:
            kind = group.__name__
            raise ValueError(f"{file}: expected the layout of COCO's {kind} files ({error!r})") from error

    def _flatten(self, document: Entry, group: Grouping, keep_empty: bool) -> None:
        self.categories = self._categories(document["categories"], {} if group is panoptic else {"isthing": 1})
        try:
            groups = group(document["annotations"])
        except ValueError as error:
            raise ValueError(f"{self.file}: {error}") from error
        images = sorted(document["images"], key=lambda image: image["id"])
        self._check_ids([image["id"] for image in images], list(groups))
        if not keep_empty:
            images = [i for i in images if any(not o.get("iscrowd") for o in groups.get(i["id"], ("", []))[1])]

        ids = [image["id"] for image in images]
        self.image_ids = np.array(numbers(ids), np.int64)  # (I,)
        self.sizes = np.array([(i.get("height", 0), i.get("width", 0)) for i in images], np.int32)  # (I, 2), 0 unknown
        self.image_names = ByteRows(image["file_name"].encode() for image in images)
        marked = [groups.get(image["id"], ("", [])) for image in images]
        self.mask_names = ByteRows(name.encode() for name, _ in marked)
        counts = [len(objects) for _, objects in marked]
        self.starts = np.cumsum([0, *counts])  # (I + 1,) into the objects of all images
        flat = [one for _, objects in marked for one in objects]
        owners = [id_ for id_, count in zip(ids, counts, strict=True) for _ in range(count)]
        self.objects = Objects(
            np.array([one["id"] for one in flat], np.int64),
            self._labels(flat, owners),
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
        self._refuse_repeats("category", [entry["id"] for entry in entries])
        return listed(entries, default)

    def _check_ids(self, image_ids: list[ImageId], annotated: list[ImageId]) -> None:
        self._refuse_repeats("image", image_ids)
        if strangers := sorted(set(annotated) - set(image_ids)):
            raise ValueError(f"{self.file}: annotations of images that are not listed: ids {strangers[:5]}")

    def _refuse_repeats(self, what: str, ids: list[ImageId]) -> None:
        if repeats := [id_ for id_, count in Counter(ids).items() if count > 1]:
            raise ValueError(f"{self.file}: {what} ids must differ, but these repeat: {repeats[:5]}")

    def _labels(self, objects: list[Entry], owners: list[ImageId]) -> np.ndarray:
        index_of = {category.id: index for index, category in enumerate(self.categories)}
        for one, image_id in zip(objects, owners, strict=True):
            if one["category_id"] not in index_of:
                known = f"{len(index_of)} ids from {min(index_of)} to {max(index_of)}" if index_of else "none"
                raise ValueError(
                    f"{self.file}: image {image_id}, object {one['id']} has category_id {one['category_id']}, "
                    f"which is not in the file's categories ({known})"
                )
        return np.array([index_of[one["category_id"]] for one in objects], np.int64)


def numbers(ids: list[ImageId]) -> Iterable[ImageId]:
    """The ids; where they are names, as Cityscapes has, their places: metrics and pycocotools want whole numbers."""
    return range(len(ids)) if ids and isinstance(ids[0], str) else ids


def panoptic(annotations: list[Entry]) -> Groups:
    """One entry per image, which names its mask and lists its segments."""
    groups = {entry["image_id"]: (entry["file_name"], entry["segments_info"]) for entry in annotations}
    if len(groups) < len(annotations):
        raise ValueError(f"{len(annotations)} annotations for {len(groups)} images, expected one for each")
    return groups


def instances(annotations: list[Entry]) -> Groups:
    """One entry per object, with its outline."""
    groups: Groups = {}
    for entry in annotations:
        if not entry["segmentation"]:
            raise ValueError(f"annotation {entry['id']} has an empty segmentation, expected polygons or run lengths")
        groups.setdefault(entry["image_id"], ("", []))[1].append(entry)
    return groups


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
