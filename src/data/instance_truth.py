"""Objects that AP is scored against where they stand in a file of their own, beside the data set's segments.

COCO's panoptic models are published with the AP of instances_val2017.json. Classes of the two are matched by name,
images by id and file name; what does not match is refused before the first step.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from pycocotools import mask as mask_utils

from src.data.formats.annotations import Annotations
from src.data.formats.coco_masks import draw_mask, to_rle
from src.data.formats.image_names import spelling
from src.data.problems import DataError, Kind, Problem, first_few, refuse
from src.data.scenes import Identity, Scenes
from src.data.targets import Category


class InstanceTruth:
    """The objects of images, as mask AP takes them: class index, crowd, run lengths and area.

    Args:
        file: annotations in COCO's instances layout.
        categories: of the data set that is scored; its things are scored against the file.
        scenes: the images that will be scored.

    Raises FileNotFoundError, or ValueError for classes or images that do not match and for masks that cannot be drawn.
    """

    def __init__(self, file: str, categories: Sequence[Category], scenes: Scenes) -> None:
        if not Path(file).is_file():
            raise FileNotFoundError(f"task.instance_truth={file}: no such file")
        self.file = Path(file)
        self.problems: list[Problem] = []  # warnings: what is read differently than it is written
        self.annotations = Annotations(self.file, "instances", keep_empty=True, report=self.report)
        self.class_of = self.match_classes(categories)  # class index by that of the file
        images = [image for image in map(scenes.identified, range(len(scenes))) if image is not None]
        if len(images) < len(scenes):
            kind = type(scenes).__name__
            raise ValueError(f"task.instance_truth={file}: {kind} does not say which images it has (`identified`)")
        self.row_of = self.match_images(images)  # by image id
        for image in images:
            refuse(self.problems_of(image))
        self.of = lru_cache(maxsize=16)(self.read)  # every exit asks for the same image

    def report(self, problems: Any) -> None:
        """Refuse what breaks, keep the rest to be told."""
        problems = list(problems)
        refuse(problems)
        self.problems += problems

    def read(self, image_id: int, size: tuple[int, int]) -> list[dict[str, Any]]:
        """The objects of an image of a size (height, width), those whose class is scored."""
        row = self.row_of[image_id]
        objects, outlines = self.annotations.of(row), self.annotations.outlines_of(row)
        found = []
        for id_, label, crowd, area, outline in zip(*map(list, objects), outlines, strict=True):
            if int(label) in self.class_of:
                runs = to_rle(self.file, id_, outline, size)
                stated = float(area) if area > 0 else float(mask_utils.area(runs))
                found.append(
                    {
                        "category_id": self.class_of[int(label)],
                        "iscrowd": int(crowd),
                        "segmentation": runs,
                        "area": stated,
                    }
                )
        return found

    def problems_of(self, image: Identity) -> Iterator[Problem]:
        """What keeps the objects of an image from being scored."""
        row = self.row_of[image.image_id]
        stated = tuple(self.annotations.sizes[row].tolist())
        if 0 not in stated and stated != image.size:
            found = "is {} x {} (height x width) there".format(*stated)
            yield self.problem(
                Kind.SIZE, f"image {image.name}", found, "{} x {}, as the data has it".format(*image.size)
            )
        ids, outlines = self.annotations.of(row).ids.tolist(), self.annotations.outlines_of(row)
        for id_, outline in zip(ids, outlines, strict=True):
            try:
                runs = to_rle(self.file, id_, outline, image.size)
                if isinstance(outline, dict):
                    draw_mask(self.file, id_, runs, image.size)
            except DataError as error:
                yield from error.problems

    def problem(self, kind: Kind, id_: str, found: str, expected: str) -> Problem:
        return Problem(kind, f"task.instance_truth={self.file}", id_, found, expected)

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
            said = f"has other classes; of the data's things it lacks {missing}, and has objects of {more}"
            refuse([self.problem(Kind.CATEGORIES, "", said, "the things of the data, by name")])
        return class_of

    def match_images(self, images: Sequence[Identity]) -> dict[int, int]:
        """The row of each image in the file. Raises DataError for images that are not there, or others by that id."""
        names = [stem(name) for name in self.annotations.image_names]
        by_id = {id_: row for row, id_ in enumerate(self.annotations.image_ids.tolist())}
        found = {image.image_id: by_id[image.image_id] for image in images if image.image_id in by_id}
        if not found or any(names[found.get(i.image_id, 0)] != stem(i.name) for i in images if i.image_id in found):
            # the file numbers images otherwise
            ours = [stem(image.name) for image in images]
            twice = {name for many in (names, ours) for name, count in Counter(many).items() if count > 1}
            by_name = {name: row for row, name in enumerate(names) if name not in twice}
            found = {i.image_id: by_name[name] for i, name in zip(images, ours, strict=True) if name in by_name}
        if lacking := [f"{image.image_id} ({image.name})" for image in images if image.image_id not in found]:
            said = f"lacks {len(lacking)} of the {len(images)} images that are scored: {first_few(lacking)}"
            refuse([self.problem(Kind.UNLISTED, "", said, "every one of them, by id and file name")])
        return found


def plain(name: str) -> str:
    """A name without case and doubled spaces."""
    return " ".join(name.casefold().split())


def stem(name: str) -> str:
    """A picture's name without folder, ending, case and Unicode form."""
    return PurePosixPath(*spelling(name)).stem
