"""What a COCO JSON file says: its classes, its images, and the objects of each, whatever tool wrote it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.data.formats.json_file import Entry
from src.data.formats.polygons import put_outlines_right
from src.data.formats.values import (
    IMAGES,
    MASKS,
    OBJECTS,
    SEGMENTS,
    Value,
    brief,
    is_id,
    objects,
    part,
    put_right,
    whole,
)
from src.data.problems import Kind, Problem, Report, refuse, repeats

ImageId = int | str
Groups = dict[ImageId, tuple[str, list[Entry]]]  # image id to its mask file and its objects
Grouping = Callable[[list[Entry], Mapping[ImageId, Entry], Path], tuple[Groups, list[Problem]]]


def images_in(document: Any, file: Path, report: Report) -> list[Entry]:
    """The images that a document lists, those that can be told apart; file_name None: not to be found."""
    images = part(document, "images", file)
    report(put_right(images, IMAGES, file, "image"))
    images = [image for image in images if image["id"] is not None]
    if len({type(image["id"]) for image in images}) > 1:
        for image in images:
            image["id"] = str(image["id"])
        said = "have a number for id or a name, read as names"
        report([Problem(Kind.READ_AS, str(file), "images", said, "the one or the other")])
    for image in images:
        image["height"], image["width"] = image["height"] or 0, image["width"] or 0
    return images


def find_owners(annotations: list[Entry], by_id: Mapping[ImageId, Entry], file: Path) -> Iterator[Problem]:
    """Have annotations name images as the images do: a number for a number, where text stands."""
    twins: dict[str, list[ImageId]] = {}
    for id_ in by_id:
        twins.setdefault(spelling(id_), []).append(id_)
    read = []
    for entry in annotations:
        before = entry["image_id"]
        if before not in by_id and len(same := twins.get(spelling(before), [])) == 1:
            entry["image_id"] = same[0]
            read.append(f"has image_id {before!r}, read as {same[0]!r}, as the image is listed")
    if read:
        more = f", and so on in {len(read)} annotations" * (len(read) > 1)
        yield Problem(Kind.READ_AS, str(file), "", f"{read[0]}{more}", "the id of an image as it is listed")


def spelling(id_: ImageId) -> str:
    """What the same id has in common, be it a number or text."""
    number = id_ if isinstance(id_, int) else whole(id_)
    return str(id_ if number is None else number)


def panoptic(entries: list[Entry], by_id: Mapping[ImageId, Entry], file: Path) -> tuple[Groups, list[Problem]]:
    """One entry per image, which names its mask and lists its segments; ids that repeat."""
    wrong_layout(entries, "segments_info", file)
    groups: Groups = {}
    problems = owned(entries, MASKS, by_id, file)
    entries = [entry for entry in entries if None not in (entry["image_id"], entry["file_name"])]
    problems += repeats(file, "annotation of image", [entry["image_id"] for entry in entries])
    owners: dict[int, ImageId] = {}  # by the place in memory of a segment's entry
    for entry in entries:
        where = f"annotation of image {entry['image_id']}"
        entry["segments_info"] = objects(entry.get("segments_info"), "segments_info", file, where)
        owners |= {id(one): entry["image_id"] for one in entry["segments_info"]}
    flat = [one for entry in entries for one in entry["segments_info"]]
    problems += put_right(
        flat, SEGMENTS, file, "segment", lambda one: f"image {owners[id(one)]}, segment {one.get('id')}"
    )
    for place, one in enumerate(flat):
        one["id"] = -1 - place if one["id"] is None else one["id"]
    for entry in reversed(entries):
        segments = {one["id"]: one for one in reversed(entry["segments_info"])}
        if len(segments) < len(entry["segments_info"]):
            ids = [one["id"] for one in entry["segments_info"]]
            problems += repeats(file, f"image {entry['image_id']}, segment", ids)
        groups[entry["image_id"]] = (entry["file_name"], [*reversed(segments.values())])
    return groups, [*problems, *areas_of_zero(flat, "segment", file)]


def instances(entries: list[Entry], by_id: Mapping[ImageId, Entry], file: Path) -> tuple[Groups, list[Problem]]:
    """One entry per object, with its outline; ids that repeat, and objects without an outline."""
    wrong_layout(entries, "segmentation", file)
    groups: Groups = {}
    problems = [*repeats(file, "annotation", [e["id"] for e in entries if isinstance(e.get("id"), int | str)])]
    problems += owned(entries, OBJECTS, by_id, file)
    entries = [entry for entry in entries if entry["image_id"] is not None]
    problems += numbered(entries, file)
    problems += put_outlines_right(entries, file)
    for entry in entries:
        groups.setdefault(entry["image_id"], ("", []))[1].append(entry)
    return groups, [*problems, *areas_of_zero(entries, "annotation", file)]


def owned(entries: list[Entry], values: Sequence[Value], by_id: Mapping[ImageId, Entry], file: Path) -> list[Problem]:
    """Put annotations right, and have them name the images that are listed."""
    problems = [*put_right(entries, values, file, "annotation")]
    named = [entry for entry in entries if entry["image_id"] is not None]
    return [*problems, *find_owners(named, by_id, file)]


def numbered(entries: list[Entry], file: Path) -> Iterator[Problem]:
    """Have annotations numbers for ids: their own, or their places where one has none that fits."""
    odd = [entry.get("id") for entry in entries if not is_id(entry.get("id"))]
    if not odd:
        return
    for place, entry in enumerate(entries, 1):
        entry["id"] = place
    said = f"have ids such as {brief(odd[0])}, so all are numbered by their places, from 1"
    yield Problem(Kind.READ_AS, str(file), "annotations", said, "whole numbers of 64 bits")


def areas_of_zero(entries: list[Entry], noun: str, file: Path) -> Iterator[Problem]:
    """Areas that cannot be where a mask has pixels, which are counted then (see `coco.truth`)."""
    zero = [entry["id"] for entry in entries if entry["area"] == 0]
    if zero:
        said = f"has area 0, as {len(zero)} {noun}s in all; counted in the masks that have pixels"
        yield Problem(Kind.READ_AS, str(file), f"{noun} {zero[0]}", said, "pixels")


def wrong_layout(entries: list[Entry], key: str, file: Path) -> None:
    """Raise DataError for annotations of COCO's other layout."""
    others = {"segments_info": ("segmentation", "instances"), "segmentation": ("segments_info", "panoptic")}
    other, layout = others[key]
    if entries and key not in entries[0] and other in entries[0]:
        wanted = f"{key!r} in its annotations; data=coco_{layout} or custom_{layout} reads this file"
        refuse([Problem(Kind.UNREADABLE, str(file), "", f"is of COCO's {layout} layout", wanted)])
