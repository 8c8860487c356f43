"""Annotation files as tools write them: read to the same masks, areas and crowds as the plain file, or named."""

import copy
import json
import unicodedata
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.coco import CocoInstances, CocoPanoptic
from src.data.export import export_coco
from src.data.problems import DataError, Kind, Problem
from src.data.shapes import Shapes
from src.data.targets import Sample

SCENES = Shapes(6, size=64, seed=5, crowd=0.5)
Change = Callable[[Any], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    export_coco(SCENES, tmp_path, "val")
    return tmp_path


def edit(root: Path, change: Change, layout: str) -> str:
    """Change an annotation file in place; its name."""
    file = root / "annotations" / f"{layout}_val2017.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return file.name


def read(root: Path, layout: str, problems: list[Problem] | None = None) -> CocoInstances | CocoPanoptic:
    """The scenes; what is wrong is refused, or kept in a list."""
    file = root / "annotations" / f"{layout}_val2017.json"

    def report(found: Any) -> None:
        kept = list(found)
        if problems is None:
            assert not kept, kept
        else:
            problems.extend(kept)

    if layout == "instances":
        return CocoInstances(root / "val2017", file, report=report)
    return CocoPanoptic(root / "val2017", file, root / "panoptic_val2017", report=report)


def same(ours: Sample, theirs: Sample) -> bool:
    """Whether two samples show the same picture, masks, classes, crowds, areas and boxes."""
    one, other = ((sample.image, *sample.truth[:4], sample.truth.boxes()) for sample in (ours, theirs))
    pairs = zip(one, other, strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def each(key: str, change: Callable[[Any], Any], entries: str = "annotations") -> Change:
    """Rewrite a value of every entry."""

    def rewrite(document: Any) -> None:
        for entry in document[entries]:
            for one in entry.get("segments_info", [entry]) if key not in entry else [entry]:
                one[key] = change(one[key])

    return rewrite


def drop(key: str, entries: str = "annotations") -> Change:
    """Take a key from every entry."""

    def rewrite(document: Any) -> None:
        for entry in document[entries]:
            for one in entry.get("segments_info", [entry]):
                one.pop(key, None)

    return rewrite


def both(*changes: Change) -> Change:
    return lambda document: [change(document) for change in changes] and None


def rename(change: Callable[[str], str]) -> Change:
    return each("file_name", change, "images")


def dummy(document: Any) -> None:
    document["categories"].insert(0, {"id": 0, "name": document["categories"][0]["name"], "isthing": 1})


def wild(value: int) -> str:
    return str(uuid.UUID(int=value))


def mixed(document: Any) -> None:
    document["images"][0]["id"] = str(document["images"][0]["id"])


BOTH = ("panoptic", "instances")
READ: list[tuple[str, tuple[str, ...], Change, str]] = [  # and what is said of it; nothing of what COCO allows
    ("no iscrowd where none is one", (), drop("iscrowd"), ""),
    ("iscrowd as text", BOTH, each("iscrowd", str), "has iscrowd '"),
    ("iscrowd as true and false", BOTH, each("iscrowd", bool), "has iscrowd "),
    ("no area", BOTH, drop("area"), ""),
    ("area as text", BOTH, each("area", str), "has area '"),
    ("area 0", BOTH, each("area", lambda area: 0), "has area 0, "),
    ("area beyond all pictures", BOTH, each("area", lambda area: 1e300), "has area 1e+300, read as not known"),
    ("area -1", BOTH, each("area", lambda area: -1), "has area -1, read as not known"),
    ("sizes of -1", BOTH, both(each("height", lambda v: -1, "images")), "has height -1, read as not known"),
    ("no sizes", BOTH, both(drop("height", "images"), drop("width", "images")), ""),
    ("sizes as text", BOTH, each("width", str, "images"), "has width '64', read as 64"),
    ("ids with a point", BOTH, each("id", float, "images"), "has id 0.0, read as 0"),
    ("category ids as text", BOTH, each("category_id", str), "has category_id '"),
    (
        "category ids as text, both sides",
        BOTH,
        both(each("category_id", str), each("id", str, "categories")),
        "has id '",
    ),
    ("image ids as text in the annotations", BOTH, each("image_id", str), "has image_id '0', read as 0"),
    ("image ids as text in the list", BOTH, each("id", str, "images"), "has image_id 0, read as '0'"),
    ("image ids with zeros", BOTH, each("id", lambda v: f"{v:012d}", "images"), "read as '000000000000'"),
    ("image ids of both kinds", BOTH, mixed, "have numbers and names as ids"),
    ("image ids that are UUIDs", BOTH, both(each("id", wild, "images"), each("image_id", wild)), ""),
    (
        "image ids beyond 64 bits",
        BOTH,
        both(each("id", lambda v: v + 2**80, "images"), each("image_id", lambda v: v + 2**80)),
        "has id 1208925819614629174706176, read as '1208925819614629174706176'",
    ),
    ("annotation ids that are UUIDs", ("instances",), each("id", wild), "all are numbered by their places, from 1"),
    ("annotation ids beyond 64 bits", ("instances",), each("id", lambda v: v + 2**80), "numbered by their places"),
    ("no annotation ids", ("instances",), drop("id"), "have ids such as None, so all are numbered"),
    ("annotation ids from 0", ("instances",), each("id", lambda v: v - 1), ""),
    (
        "segment ids as text",
        ("panoptic",),
        each("segments_info", lambda s: [o | {"id": str(o["id"])} for o in s]),
        "id",
    ),
    ("isthing as text", BOTH, each("isthing", lambda v: str(int(v)), "categories"), "has isthing '"),
    ("colours as text", BOTH, each("color", "#{0[0]:02x}{0[1]:02x}{0[2]:02X}".format, "categories"), ""),
    ("isthing as true and false", BOTH, each("isthing", bool, "categories"), ""),
    ("backslashes", BOTH, rename(lambda name: f".\\{name}"), "read as '000000000000.png', and so are 5 more"),
    ("a slash before the name", BOTH, rename(lambda name: f"/{name}"), "has no '/000000000000.png'; read as"),
    ("the image folder in the name", BOTH, rename(lambda name: f"val2017/{name}"), "has no 'val2017/000000000000.png'"),
    ("a path of another machine", BOTH, rename(lambda name: f"C:\\me\\VAL2017\\{name}"), "read as '000000000000.png'"),
    ("other letter cases", BOTH, rename(str.upper), "has no '000000000000.PNG'; read as '000000000000.png'"),
    ("masks named as photographs", ("panoptic",), each("file_name", lambda n: n.replace("png", "jpg")), "read as"),
]
CASES = [
    pytest.param(layout, change, said, id=f"{name}-{layout}")
    for name, layouts, change, said in READ
    for layout in layouts or BOTH
]


def no_crowds(document: Any) -> None:
    for entry in document["annotations"]:
        for one in entry.get("segments_info", [entry]):
            one["iscrowd"] = 0


@pytest.mark.parametrize(("layout", "change", "said"), CASES)
def test_what_has_one_meaning_is_read(root: Path, layout: str, change: Change, said: str) -> None:
    """To what the plain file has, and what is read differently than it is written is said in one warning."""
    if "iscrowd" not in said and change is READ[0][2]:
        edit(root, no_crowds, layout)
    plain = [*read(root, layout)]
    problems: list[Problem] = []
    edit(root, change, layout)
    scenes = read(root, layout, problems)
    assert all(same(one, other) for one, other in zip(scenes, plain, strict=True))
    assert not any(problem.breaks for problem in problems)
    assert {problem.kind for problem in problems} == ({Kind.READ_AS} if said else set())
    assert said in " / ".join(map(str, problems))
    assert len(problems) <= 2


SQUARE = [10, 10, 40, 10, 40, 30, 10, 30]
OUTLINES: list[tuple[str, Any, str]] = [
    ("plain", [SQUARE], ""),
    ("flat", SQUARE, "has one list of numbers for segmentation"),
    ("pairs", [[10, 10], [40, 10], [40, 30], [10, 30]], "has corners as pairs"),
    ("polygons of pairs", [[[10, 10], [40, 10], [40, 30], [10, 30]]], "has corners as pairs"),
    ("a stray part of two points", [SQUARE, [50, 50, 60, 60]], "has parts of one or two corners"),
    ("a stray point", [[3, 3], SQUARE], "has parts of one or two corners"),
]


@pytest.mark.parametrize(("outline", "said"), [case[1:] for case in OUTLINES], ids=[case[0] for case in OUTLINES])
def test_outlines_of_other_forms(root: Path, outline: Any, said: str) -> None:
    """Draw what the plain polygon draws."""

    def outlined(as_it_is: Any) -> Change:
        return lambda document: document["annotations"][0].update(segmentation=as_it_is)

    edit(root, outlined([SQUARE]), "instances")
    plain = [*read(root, "instances")]
    problems: list[Problem] = []
    edit(root, outlined(outline), "instances")
    assert all(same(one, other) for one, other in zip(read(root, "instances", problems), plain, strict=True))
    assert [said in str(problem) and problem.kind is Kind.READ_AS for problem in problems] == [True] * bool(said)


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(root: Path, mark: str) -> None:
    """As editors leave them."""
    plain = [*read(root, "instances")]
    file = root / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text(), encoding=mark)
    assert all(same(one, other) for one, other in zip(read(root, "instances"), plain, strict=True))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_another_unicode_form(root: Path, form: str) -> None:
    """Are found, whichever of the two the disk has."""
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    (root / "val2017" / "000000000000.png").rename(root / "val2017" / unicodedata.normalize(form, "é.png"))

    def change(document: Any) -> None:
        document["images"][0]["file_name"] = unicodedata.normalize(other, "é.png")

    edit(root, change, "instances")
    problems: list[Problem] = []
    assert len(read(root, "instances", problems)[0].truth.labels)
    assert [problem.kind for problem in problems] == [Kind.READ_AS]


def test_no_picture_is_taken_for_two(root: Path) -> None:
    """Nor one of several that would fit."""
    edit(root, rename(lambda name: "A.PNG" if name < "000000000002" else name), "instances")
    Image.new("RGB", (64, 64)).save(root / "val2017" / "a.png")
    problems: list[Problem] = []
    read(root, "instances", problems)  # both names are the same: one file
    assert [problem.kind for problem in problems] == [Kind.READ_AS]
    Image.new("RGB", (64, 64)).save(root / "val2017" / "a.Png")
    problems.clear()
    read(root, "instances", problems)
    assert {problem.kind for problem in problems} == {Kind.MISSING}


@pytest.mark.parametrize("where", ["below", "above"])
def test_a_picture_that_lies_elsewhere(root: Path, where: str) -> None:
    """Is missed, and the setting that would find it is named."""
    place = root / "val2017" / "deeper" if where == "below" else root
    place.mkdir(exist_ok=True)
    (root / "val2017" / "000000000003.png").rename(place / "000000000003.png")
    with pytest.raises(DataError, match=f"no such image file, expected .*data.val.image_folder={place}"):
        CocoInstances(root / "val2017", root / "annotations" / "instances_val2017.json")


def spoilt(change: Callable[[Any], Any]) -> Change:
    """Change the first annotation that is no crowd."""

    def rewrite(document: Any) -> None:
        entry = next(one for one in document["annotations"] if not one.get("iscrowd"))
        entry.update(change(copy.deepcopy(entry)))

    return rewrite


NAMED: list[tuple[str, Change, str]] = [
    ("no annotations", lambda d: d.pop("annotations") and None, "has no 'annotations'; it has 'images', 'categories'"),
    ("annotations that are an object", lambda d: d.update(annotations={}), "has dict {} in 'annotations'"),
    ("no category_id", drop("category_id"), "annotation 1 has no category_id, expected the id of a category"),
    ("no image_id", drop("image_id"), "annotation 1 has no image_id"),
    ("no file_name", drop("file_name", "images"), "image 0 has no file_name, expected the name of an image file"),
    ("a crowd of 2", spoilt(lambda one: {"iscrowd": 2}), "has iscrowd 2, expected 0 or 1"),
    ("a crowd in words", spoilt(lambda one: {"iscrowd": "no"}), "has iscrowd 'no', expected 0 or 1"),
    ("an area in words", spoilt(lambda one: {"area": "big"}), "has area 'big', expected pixels"),
    ("no segmentation", spoilt(lambda one: {"segmentation": None}), "has no segmentation, expected polygons"),
    ("text for an outline", spoilt(lambda one: {"segmentation": "a lot"}), "has an invalid segmentation, 'a lot'"),
    ("odd numbers", spoilt(lambda one: {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}), "has a polygon of 7 numbers"),
    ("a name without end", rename(lambda name: 300 * "x" + name), "no such image file"),
    ("a number without end", lambda d: d["images"][0].update(id="HUGE"), "not readable as JSON"),
    ("no object", spoilt(lambda one: {"segmentation": [[1, 2, 3, 4]]}), "has a polygon of 4 numbers"),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in NAMED], ids=[case[0] for case in NAMED])
def test_what_means_nothing_is_named(root: Path, change: Change, said: str) -> None:
    """In words that name the file, the entry and what was expected."""
    name = edit(root, change, "instances")
    file = root / "annotations" / name
    file.write_text(file.read_text().replace('"HUGE"', 5000 * "1"))
    with pytest.raises(DataError) as raised:
        CocoInstances(root / "val2017", root / "annotations" / "instances_val2017.json")
    assert f"{name}: " in str(raised.value) or "xxx" in str(raised.value)
    assert said in str(raised.value)
    assert "Error" not in str(raised.value)


def test_a_bare_list_is_named(root: Path) -> None:
    """As of results, or of the annotations alone."""
    file = root / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps(json.loads(file.read_text())["annotations"]))
    with pytest.raises(DataError, match="holds a list, expected COCO's layout, an object with 'categories'"):
        read(root, "instances")


def test_boxes_only_are_said_once(root: Path) -> None:
    """Of a file that was made for detection."""
    problems: list[Problem] = []
    edit(root, drop("segmentation"), "instances")
    scenes = read(root, "instances", problems)
    assert len(problems) == 1
    assert "has boxes only, in all of its" in str(problems[0])
    assert "boxes are not enough for masks" in str(problems[0])
    assert not any(len([*scenes.problems_of(index)]) for index in range(len(scenes)))


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_panoptic_masks_in_grey(root: Path, mode: str) -> None:
    """Are told that ids are read from colours."""
    file = root / "panoptic_val2017" / "000000000002.png"
    grey = np.asarray(Image.open(file))[..., 0]
    Image.fromarray(grey.astype(np.uint8 if mode == "L" else np.uint16)).save(file)
    with pytest.raises(DataError, match=r"000000000002.png: is an image in one channel .*R \+ 256 G \+ 65536 B"):
        read(root, "panoptic")[2]


def test_masks_with_a_palette_are_read(root: Path) -> None:
    """By the colours that they show."""
    plain = read(root, "panoptic")[2]
    file = root / "panoptic_val2017" / "000000000002.png"
    Image.open(file).quantize(64).save(file)
    assert same(read(root, "panoptic")[2], plain)


def test_an_image_without_a_name_is_still_listed(root: Path) -> None:
    """It is left out where flaws are kept, and its annotations are not taken for those of an unlisted image."""
    for layout in BOTH:
        edit(root, lambda document: document["images"][0].pop("file_name"), layout)
        problems: list[Problem] = []
        assert len(read(root, layout, problems)) == len(SCENES) - 1
        assert [str(problem.kind) for problem in problems] == [Kind.VALUE]


@pytest.mark.parametrize(
    ("outline", "said"),
    [
        ([[1, 1, 9, 1, 9, None]], "has a polygon with None, expected numbers"),
        ([[1, 1, 9, 1, 9, "9"]], "has a polygon with '9', expected numbers"),
        ({"size": ["64", "64"], "counts": [0, 4096]}, "has run lengths of '64' x '64', expected 64 x 64"),
    ],
)
def test_an_outline_that_cannot_be_drawn_says_why(root: Path, outline: Any, said: str) -> None:
    """In words that show the value."""
    edit(root, lambda document: document["annotations"][0].update(segmentation=outline), "instances")
    with pytest.raises(DataError, match=f"annotation 1 {said}"):
        list(read(root, "instances"))
