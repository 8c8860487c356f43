"""The images of a COCO JSON file and the objects of each, in either layout, from any tool."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal

from src.data.formats.boxes import normalize_boxes
from src.data.formats.json_file import Entry, brief, checked_entries, entries_of
from src.data.formats.polygons import normalize_outlines
from src.data.formats.values import ANNOTATIONS, IMAGES, MASKS, SEGMENTS, Value, is_id, normalize, to_whole
from src.data.problems import Kind, Problem, Report, fail, read_as, repeated_ids

ImageId = int | str
Layout = Literal["panoptic", "instances"]
Groups = dict[ImageId, tuple[str, list[Entry]]]  # image id to its mask file and its objects
KEYS = {"panoptic": "segments_info", "instances": "segmentation"}  # of annotations in this layout only


def images_in(document: Any, file: Path, report: Report) -> dict[ImageId, Entry]:
    """The images of a document by id, the first of each; `file_name` is None, height and width 0 if unknown."""
    images = entries_of(document, "images", file)
    report(normalize(images, IMAGES, file, "image"))
    images = [image for image in images if image["id"] is not None]
    if len({type(image["id"]) for image in images}) > 1:
        for image in images:
            image["id"] = str(image["id"])
        report([read_as(file, "images", "have numbers and names as ids, all read as names", "only one of the two")])
    for image in images:
        image["height"] = image["height"] or 0
        image["width"] = image["width"] or 0
    report(repeated_ids(file, "image", [image["id"] for image in images]))
    return {image["id"]: image for image in reversed(images)}


def group_annotations(
    document: Any, layout: Layout, image_ids: Collection[ImageId], file: Path, report: Report, masks: bool = True
) -> Groups:
    """The objects of each annotated image, whether it is in `image_ids` or not; see `Annotations` for `masks`."""
    annotations = entries_of(document, "annotations", file)
    for other, key in KEYS.items():
        if annotations and KEYS[layout] not in annotations[0] and key in annotations[0]:
            expected = f"{KEYS[layout]!r} in its annotations; data=coco_{other} or custom_{other} reads this file"
            fail(Kind.UNREADABLE, file, f"is of COCO's {other} layout", expected)
    if layout == "panoptic":
        groups, problems = group_segments(annotations, image_ids, file)
    else:
        groups, problems = group_instances(annotations, image_ids, file, masks)
    report(problems)
    return groups


def group_segments(
    annotations: list[Entry], image_ids: Collection[ImageId], file: Path
) -> tuple[Groups, list[Problem]]:
    """Panoptic layout: one annotation per image, which names its mask and lists its segments."""
    problems = normalize_owned(annotations, MASKS, image_ids, file)
    annotations = [entry for entry in annotations if None not in (entry["image_id"], entry["file_name"])]
    problems += repeated_ids(file, "annotation of image", [entry["image_id"] for entry in annotations])
    segments: list[Entry] = []
    for entry in annotations:
        owner = f"annotation of image {entry['image_id']}"
        own = checked_entries(entry.get("segments_info"), "segments_info", file, owner)
        for segment in own:
            segment["image_id"] = entry["image_id"]
        segments += own
    problems += normalize(segments, SEGMENTS, file, "segment")
    for place, segment in enumerate(segments, 1):
        if segment["id"] is None:
            segment["id"] = -place
    groups: Groups = {}
    for entry in reversed(annotations):  # the first annotation of an image counts, and the first segment of an id
        own = entry["segments_info"]
        first_by_id = {segment["id"]: segment for segment in reversed(own)}
        if len(first_by_id) < len(own):
            problems += repeated_ids(file, f"image {entry['image_id']}, segment", [segment["id"] for segment in own])
        groups[entry["image_id"]] = (entry["file_name"], [*reversed(first_by_id.values())])
    return groups, [*problems, *zero_areas(segments, "segment", file)]


def group_instances(
    annotations: list[Entry], image_ids: Collection[ImageId], file: Path, masks: bool
) -> tuple[Groups, list[Problem]]:
    """Instances layout: one annotation per object, with its outline, its box or both."""
    ids = [entry["id"] for entry in annotations if isinstance(entry.get("id"), int | str)]
    problems = [*repeated_ids(file, "annotation", ids)]
    problems += normalize_owned(annotations, ANNOTATIONS, image_ids, file)
    annotations = [entry for entry in annotations if entry["image_id"] is not None]
    problems += number_annotations(annotations, file)
    problems += normalize_outlines(annotations, file, masks)
    of_boxes = normalize_boxes(annotations, file)
    problems += of_boxes if not masks else []
    groups: Groups = {}
    for entry in annotations:
        groups.setdefault(entry["image_id"], ("", []))[1].append(entry)
    return groups, [*problems, *zero_areas(annotations, "annotation", file)]


def normalize_owned(
    annotations: list[Entry], values: Iterable[Value], image_ids: Collection[ImageId], file: Path
) -> list[Problem]:
    """Normalize annotations, and write their image ids as `image_ids` has them, as a number or as text."""
    problems = normalize(annotations, values, file, "annotation")
    spellings: dict[str, list[ImageId]] = {}
    for id_ in image_ids:
        spellings.setdefault(spelling(id_), []).append(id_)
    changes = []
    for entry in annotations:
        written = entry["image_id"]
        if written is None or written in image_ids:
            continue
        same = spellings.get(spelling(written), [])
        if len(same) == 1:
            entry["image_id"] = same[0]
            changes.append(f"has image_id {written!r}, read as {same[0]!r}, as the image is listed")
    if changes:
        problems.append(read_as(file, "", changes[0], "the id of an image as it is listed", len(changes)))
    return problems


def spelling(id_: ImageId) -> str:
    """An id as text, the same for a number and for text that stands for this number."""
    number = id_ if isinstance(id_, int) else to_whole(id_)
    return str(id_ if number is None else number)


def number_annotations(annotations: list[Entry], file: Path) -> list[Problem]:
    """Number all annotations by their places if an id is not a 64-bit integer."""
    unusual = [entry.get("id") for entry in annotations if not is_id(entry.get("id"))]
    if not unusual:
        return []
    for place, entry in enumerate(annotations, 1):
        entry["id"] = place
    found = f"have ids such as {brief(unusual[0])}, so all are numbered by their places, from 1"
    return [read_as(file, "annotations", found, "whole numbers of 64 bits")]


def zero_areas(objects: list[Entry], noun: str, file: Path) -> list[Problem]:
    """Warn of areas of 0; `Coco._truth` counts the pixels of these masks."""
    ids = [entry["id"] for entry in objects if entry["area"] == 0]
    if not ids:
        return []
    found = "has area 0, counted in the mask if this has pixels"
    return [read_as(file, f"{noun} {ids[0]}", found, "pixels", len(ids), f"{noun}s")]
