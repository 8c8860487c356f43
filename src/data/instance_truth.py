"""The ground truth of AP, where it is in a file of its own beside the data set's segments.

COCO's panoptic models are published with the AP of instances_val2017.json. Classes of the two are matched by name,
images by id and file name; what does not match is refused before the first step.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from src.data.formats.annotations import Annotations
from src.data.formats.coco_masks import outlines_of
from src.data.formats.image_names import spelling
from src.data.problems import DataError, Kind, Problem, fail, first_few, refuse
from src.data.scenes import Identity, Scenes
from src.data.targets import Category


class InstanceTruth:
    """The objects of images, as AP takes them: class index, crowd, run lengths, box and area.

    Args:
        file: annotations in COCO's instances layout.
        categories: of the data set that is scored; its things are scored against the file.
        scenes: the images that will be scored.
        masks: whether objects need masks, or a box is enough.

    Raises FileNotFoundError, or ValueError for classes or images that do not match and for masks that cannot be drawn.
    """

    def __init__(self, file: str, categories: Sequence[Category], scenes: Scenes, masks: bool = True) -> None:
        self.setting = f"task.instance_truth={file}"
        if not Path(file).is_file():
            raise FileNotFoundError(f"{self.setting}: no such file")
        self.problems: list[Problem] = []  # warnings: values that are read differently than written
        self.annotations = Annotations(Path(file), "instances", keep_empty=True, report=self.report, masks=masks)
        self.class_of = self.match_classes(categories)  # class index by that of the file
        images = [image for image in map(scenes.identified, range(len(scenes))) if image is not None]
        if len(images) < len(scenes):
            kind = type(scenes).__name__
            raise ValueError(f"{self.setting}: {kind} does not say which images it has (`identified`)")
        self.row_of = self.match_images(images)  # by image id
        for image in images:
            refuse(self.problems_of(image))
        self.of = lru_cache(maxsize=16)(self.read)  # every exit asks for the same image

    def report(self, problems: Iterable[Problem]) -> None:
        """Raise DataError for problems that break scoring; keep the warnings."""
        problems = list(problems)
        refuse(problems)
        self.problems += problems

    def read(self, image_id: int, size: tuple[int, int]) -> list[dict[str, Any]]:
        """Return the objects of an image of a size (height, width), those whose class is scored."""
        row, found = self.row_of[image_id], []
        _, *columns = (column.tolist() for column in self.annotations.of(row))
        for label, crowd, area, outline in zip(*columns, outlines_of(self.annotations, row, size), strict=True):
            if label in self.class_of:
                rle = outline.rle()
                found.append(
                    {
                        "category_id": self.class_of[label],
                        "iscrowd": int(crowd),
                        "segmentation": rle,
                        "bbox": mask_utils.toBbox(rle).tolist() if outline.box is None else left_top_size(outline.box),
                        "area": area if area > 0 else float(mask_utils.area(rle)),
                    }
                )
        return found

    def problems_of(self, image: Identity) -> Iterator[Problem]:
        """Report a size that differs, and masks that cannot be drawn."""
        row = self.row_of[image.image_id]
        stated = self.annotations.size_of(row) or image.size
        if stated != image.size:
            found = "is {} x {} (height x width) there".format(*stated)
            expected = "{} x {}, as the data has it".format(*image.size)
            yield Problem(Kind.SIZE, self.setting, f"image {image.name}", found, expected)
        for outline in outlines_of(self.annotations, row, image.size):
            try:
                outline.checked_rle()
            except DataError as error:
                yield from error.problems

    def match_classes(self, categories: Sequence[Category]) -> dict[int, int]:
        """Class index by that of the file. Raises DataError for things and annotated categories without counterpart."""
        theirs = self.annotations.categories
        used = {*self.annotations.objects.labels.tolist()}
        places: dict[str, list[int]] = {}
        for place, category in enumerate(theirs):
            places.setdefault(plain(category.name), []).append(place)
        class_of, lacking = {}, []
        for index, category in enumerate(categories):
            same = places.get(plain(category.name), [])
            same = [place for place in same if place in used] or same[:1]
            if category.isthing and len(same) == 1:
                class_of[same[0]] = index
            elif category.isthing:
                lacking.append(f"{category.name} ({len(same)} there)")
        others = [theirs[place].name for place in sorted(used - class_of.keys())]
        if lacking or others:
            missing, more = first_few(lacking) or "none", first_few(others) or "none"
            found = f"has other classes; of the data's things it lacks {missing}, and has objects of {more}"
            fail(Kind.CATEGORIES, self.setting, found, "the things of the data, by name")
        return class_of

    def match_images(self, images: Sequence[Identity]) -> dict[int, int]:
        """The row of each image in the file. Raises DataError for images that are not there, or others by that id."""
        theirs = [stem(name) for name in self.annotations.image_names]
        ours = {image.image_id: stem(image.name) for image in images}
        row_of = {id_: row for row, id_ in enumerate(self.annotations.image_ids.tolist()) if id_ in ours}
        if not row_of or any(theirs[row] != ours[id_] for id_, row in row_of.items()):
            # the file numbers images differently
            twice = {name for names in (theirs, ours.values()) for name, count in Counter(names).items() if count > 1}
            by_name = {name: row for row, name in enumerate(theirs) if name not in twice}
            row_of = {id_: by_name[name] for id_, name in ours.items() if name in by_name}
        if lacking := [f"{image.image_id} ({image.name})" for image in images if image.image_id not in row_of]:
            found = f"lacks {len(lacking)} of the {len(images)} images that are scored: {first_few(lacking)}"
            fail(Kind.UNLISTED, self.setting, found, "every one of them, by id and file name")
        return row_of


def left_top_size(box: np.ndarray) -> list[float]:
    """A box of left, top, right and bottom as COCO writes it."""
    left, top, right, bottom = box.tolist()
    return [left, top, right - left, bottom - top]


def plain(name: str) -> str:
    """A name without case and doubled spaces."""
    return " ".join(name.casefold().split())


def stem(name: str) -> str:
    """The name of an image file without folder, suffix, case and Unicode form."""
    return PurePosixPath(*spelling(name)).stem
