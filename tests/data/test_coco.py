import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths

from src.data.coco import CocoInstances, CocoPanoptic
from src.data.export import export_coco
from src.data.problems import DataError
from src.data.shapes import Shapes

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "coco"
SCENES = Shapes(8, size=64, seed=5, crowd=0.5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    export_coco(SCENES, tmp_path, "val")
    return tmp_path


def panoptic(root: Path, split: str = "val", keep_empty: bool = True) -> CocoPanoptic:
    annotations = root / "annotations" / f"panoptic_{split}2017.json"
    return CocoPanoptic(root / f"{split}2017", annotations, root / f"panoptic_{split}2017", keep_empty)


def instances(root: Path, split: str = "val", keep_empty: bool = True) -> CocoInstances:
    return CocoInstances(root / f"{split}2017", root / "annotations" / f"instances_{split}2017.json", keep_empty)


def edit(root: Path, change: Callable[[Any], None], layout: str = "panoptic") -> str:
    """Change an annotation file in place; its name."""
    file = root / "annotations" / f"{layout}_val2017.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return file.name


def test_panoptic_scenes_come_back(root: Path):
    """Scenes written as a panoptic data set are read back the same: images, segments, classes, crowds, areas."""
    scenes = panoptic(root)
    assert scenes.categories == SCENES.categories
    assert len(scenes) == len(SCENES)
    for ours, theirs in zip(scenes, SCENES, strict=True):
        assert torch.equal(ours.image, theirs.image)
        assert ours.image_id == theirs.image_id
        torch.testing.assert_close(ours.truth, theirs.truth, rtol=0, atol=0)


def test_instances_come_back(root: Path):
    """Scenes written as an instances data set are read back with the masks and classes of their things."""
    scenes = instances(root)
    names = [category.name for category in SCENES.categories]
    assert all(category.isthing for category in scenes.categories)
    for ours, theirs in zip(scenes, SCENES, strict=True):
        things = torch.tensor([SCENES.categories[label].isthing for label in theirs.truth.labels])
        wanted = theirs.truth.select(things)
        assert torch.equal(ours.truth.masks(), wanted.masks())
        assert [scenes.categories[n].name for n in ours.truth.labels] == [names[n] for n in wanted.labels]
        assert torch.equal(ours.truth.crowd, wanted.crowd)


def test_every_kind_of_outline_is_read(root: Path):
    """Polygons, counts as a list and counts as a string give the same mask, also where they overlap."""
    mask = np.zeros((64, 64), np.uint8)
    mask[10:30, 20:50] = 1
    packed = run_lengths.encode(np.asfortranarray(mask))
    runs = [20 * 64 + 10] + [20, 44] * 29 + [20, 64 * 64 - 49 * 64 - 30]
    polygon = [[20, 10, 50, 10, 50, 30, 20, 30]]
    outlines = [polygon, {"size": [64, 64], "counts": runs}, {"size": [64, 64], "counts": packed["counts"].decode()}]

    def change(document: Any) -> None:
        entries = [{"id": n, "image_id": 3, "category_id": 4, "segmentation": o} for n, o in enumerate(outlines)]
        document["annotations"] = entries

    edit(root, change, "instances")
    sample = instances(root, keep_empty=False)[0]
    assert sample.image_id == 3
    assert len(sample.truth.segments) == 3
    assert all(torch.equal(found, torch.from_numpy(mask).bool()) for found in sample.truth.masks())
    assert sample.truth.areas.tolist() == [600, 600, 600]
    assert not sample.truth.crowd.any()


def test_images_without_objects_are_left_out_on_request(root: Path):
    """Images that are not annotated, or with crowds only, are kept for evaluation and left out of training."""

    def change(document: Any) -> None:
        document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] != 2]
        for segment in document["annotations"][0]["segments_info"]:
            segment["iscrowd"] = 1

    edit(root, change)
    everything, trained = panoptic(root), panoptic(root, keep_empty=False)
    assert [everything.image_id(n) for n in range(len(everything))] == list(range(8))
    assert [trained.image_id(n) for n in range(len(trained))] == [1, 3, 4, 5, 6, 7]
    assert len(everything[2].truth.labels) == 0
    assert not everything[2].truth.segments.any()


def test_order_of_the_file_does_not_matter(root: Path):
    """Images come by id and classes by category id, however the file lists them."""
    before = panoptic(root)

    def change(document: Any) -> None:
        for entries in document.values():
            entries.reverse()

    edit(root, change)
    after = panoptic(root)
    assert after.categories == before.categories
    assert torch.equal(after[1].truth.labels, before[1].truth.labels)
    assert torch.equal(after[1].image, before[1].image)


def test_no_object_per_annotation_stays(root: Path):
    """What a reader holds, and hands to its workers, grows by arrays and bytes: not by a Python object per image."""

    def objects(value: Any) -> int:
        if isinstance(value, dict):
            return sum(map(objects, value.values()))
        if isinstance(value, (list, tuple)):
            return sum(map(objects, value))
        return 1 + (objects(vars(value)) if hasattr(value, "__dict__") else 0)

    many, few = instances(root), instances(root)
    few.__init__(root / "val2017", root / "annotations" / edit(root, lambda d: d["annotations"].pop(), "instances"))
    assert len(few.annotations.objects.ids) < len(many.annotations.objects.ids)
    assert objects(vars(few)) == objects(vars(many))
    assert torch.equal(pickle.loads(pickle.dumps(many))[1].image, many[1].image)


def broken_image(root: Path) -> str:
    file = root / "val2017" / "000000000004.png"
    photograph = file.with_suffix(".jpg")
    Image.open(file).save(photograph)
    photograph.write_bytes(photograph.read_bytes()[:-400])

    def change(document: Any) -> None:
        document["images"][4]["file_name"] = photograph.name

    edit(root, change)
    return "000000000004.jpg: cannot be decoded .*truncated"


def broken_mask(root: Path) -> str:
    file = root / "panoptic_val2017" / "000000000004.png"
    file.write_bytes(file.read_bytes()[:100])
    return "panoptic_val2017/000000000004.png: cannot be decoded"


def strange_segment(root: Path) -> str:
    file = root / "panoptic_val2017" / "000000000004.png"
    pixels = np.array(Image.open(file))
    pixels[0, 0] = (7, 1, 2)
    Image.fromarray(pixels).save(file)
    return f"000000000004.png: segment {7 + 256 + 2 * 65536} is in the mask, expected the ids of the annotation file"


def absent_segment(root: Path) -> str:
    def change(document: Any) -> None:
        document["annotations"][4]["segments_info"].append({"id": 4242, "category_id": 1})

    edit(root, change)
    return "000000000004.png: segment 4242 is not in the mask, expected all ids of the annotation file"


def other_size(root: Path) -> str:
    def change(document: Any) -> None:
        document["images"][4]["height"] = 65

    return f"000000000004.png: is 64 x 64 .*, expected 65 x 64, as .*{edit(root, change)} says"


def other_mask_size(root: Path) -> str:
    file = root / "panoptic_val2017" / "000000000004.png"
    Image.open(file).crop((0, 0, 64, 60)).save(file)
    return "000000000004.png: is 60 x 64 .*, expected 64 x 64, as its image"


@pytest.mark.parametrize(
    "spoil", [broken_image, broken_mask, strange_segment, absent_segment, other_size, other_mask_size]
)
def test_a_bad_sample_names_itself(root: Path, spoil: Callable[[Path], str]):
    """A file that is broken or contradicts its annotation raises an error with its name and the value at fault."""
    message = spoil(root)
    scenes = panoptic(root)
    assert len(scenes[3].truth.labels)
    with pytest.raises(ValueError, match=message):
        scenes[4]


@pytest.mark.parametrize("folder", ["val2017", "panoptic_val2017"])
def test_a_missing_picture_is_missed_at_once(root: Path, folder: str):
    """An image or mask that the annotation file names and that is not there is told before the first sample is read."""
    (root / folder / "000000000004.png").unlink()
    (root / folder / "000000000006.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{folder}/000000000004.png: no such image file.*and 1 more"):
        panoptic(root)


def unknown_category(document: Any) -> str:
    document["annotations"][4]["segments_info"][0]["category_id"] = 99
    return "image 4, object .* has category_id 99, expected one of the file's 8, from 1 to 8"


def same_image_twice(document: Any) -> str:
    document["images"][4]["id"] = 3
    return "image 3 is listed 2 times"


def same_category_twice(document: Any) -> str:
    document["categories"][4]["id"] = 3
    return "category 3 is listed 2 times"


def unlisted_image(document: Any) -> str:
    document["images"].pop(4)
    return "image 4 is annotated but not listed"


def annotated_twice(document: Any) -> str:
    document["annotations"].append(document["annotations"][4])
    return "annotation of image 4 is listed 2 times"


def same_segment_twice(document: Any) -> str:
    segments = document["annotations"][4]["segments_info"]
    segments.append(segments[0])
    return f"image 4, segment {segments[0]['id']} is listed 2 times"


def no_categories(document: Any) -> str:
    del document["categories"]
    return "has no 'categories'; it has 'images', 'annotations', expected COCO's layout"


def neither_thing_nor_stuff(document: Any) -> str:
    del document["categories"][2]["isthing"]
    return "category 3 has no isthing, expected 0 or 1"


def empty_categories(document: Any) -> str:
    document["categories"] = []
    return "has no category, expected one or more"


@pytest.mark.parametrize(
    "spoil",
    [
        unknown_category,
        same_image_twice,
        same_category_twice,
        unlisted_image,
        annotated_twice,
        same_segment_twice,
        no_categories,
        empty_categories,
        neither_thing_nor_stuff,
    ],
)
def test_a_bad_annotation_file_is_refused_at_once(root: Path, spoil: Callable[[Any], str]):
    """An annotation file that contradicts itself raises an error with its name and the value, before any image."""
    messages: list[str] = []
    name = edit(root, lambda document: messages.append(spoil(document)))
    with pytest.raises(ValueError, match=f"{name}: {messages[0]}"):
        panoptic(root)


@pytest.mark.parametrize(
    ("entries", "change", "message"),
    [
        ("images", {"file_name": 5}, "image 0 has file_name 5, expected the name of an image file"),
        ("images", {"height": "tall"}, "image 0 has height 'tall', expected pixels"),
        ("images", {"height": 2**40}, "image 0 has height 1099511627776, expected pixels"),
        (
            "annotations",
            {"segments_info": [{"id": 2**70, "category_id": 1}]},
            "segment .* has id 11.*, expected a whole",
        ),
        (
            "annotations",
            {"segments_info": [{"id": 1, "category_id": 1, "area": "large"}]},
            "image 0, segment 1 has area 'large', expected pixels",
        ),
        ("annotations", {"segments_info": None}, "image 0 has NoneType None in 'segments_info', expected"),
        ("categories", {"id": "sky"}, "category sky has id 'sky', expected a whole number"),
        ("categories", {"name": None}, "category 1 has no name, expected text"),
        ("categories", {"isthing": "no"}, "category 1 has isthing 'no', expected 0 or 1"),
        ("categories", {"color": [1, 2]}, r"has color \[1, 2\], expected three numbers"),
        ("categories", {"color": "red"}, "has color 'red', expected three numbers"),
        ("categories", {"color": 16711680}, "has color 16711680, expected three numbers"),
    ],
)
def test_a_value_that_cannot_be_is_refused_at_once(root: Path, entries: str, change: dict[str, Any], message: str):
    """Whatever numpy, or a picture drawn hours later, would make of it."""
    name = edit(root, lambda document: document[entries][0].update(change))
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        panoptic(root)


@pytest.mark.parametrize(
    "outline",
    [
        [],
        [[1, 2, 3]],
        [[9, 9, 20, 20]],
        [[1] * 7],
        {"size": [32, 32], "counts": [1024]},
        [["a"] * 6],
        {"size": 1},
    ],
)
def test_a_bad_outline_names_its_annotation(root: Path, outline: Any):
    """An object whose mask cannot be drawn raises an error with the annotation's id."""

    def change(document: Any) -> None:
        document["annotations"][0] |= {"id": 777, "segmentation": outline}

    name = edit(root, change, "instances")
    with pytest.raises(ValueError, match=f"{name}: .*777"):
        list(instances(root))


@pytest.mark.parametrize("what", ["val2017", "annotations/panoptic_val2017.json", "panoptic_val2017"])
def test_what_is_missing_is_named(root: Path, what: str):
    """A missing folder or file is named with its full path, the setting and the command that help."""
    (root / what).rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=rf"not found: {root / what}\. .*data.root=.*scripts.prepare_coco"):
        panoptic(root)


def test_a_file_cut_short_is_named(root: Path):
    """Half an annotation file is said to be that."""
    file = root / "annotations" / "panoptic_val2017.json"
    file.write_text(file.read_text()[:1000])
    with pytest.raises(ValueError, match=r"panoptic_val2017.json: not readable as JSON .* expected a complete file"):
        panoptic(root)


def test_the_wrong_layout_is_named(root: Path):
    """An instances file given as a panoptic one is refused with what was expected."""
    with pytest.raises(ValueError, match="is of COCO's instances layout, expected 'segments_info'"):
        CocoPanoptic(root / "val2017", root / "annotations" / "instances_val2017.json", root / "panoptic_val2017")


@pytest.mark.skipif(not REAL.exists(), reason="needs the sample of real COCO files")
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_panoptic_files_agree_with_themselves(split: str):
    """In COCO's own files every segment of the JSON has, in the PNG, as many pixels as the JSON says."""
    scenes = panoptic(REAL, split)
    assert (len(scenes), len(scenes.categories)) == (100, 133)
    for sample in scenes:
        counted = torch.bincount(sample.truth.segments.flatten(), minlength=len(sample.truth.labels) + 1)[1:]
        assert torch.equal(counted.float(), sample.truth.areas)


@pytest.mark.skipif(not REAL.exists(), reason="needs the sample of real COCO files")
def test_real_outlines_have_their_areas():
    """COCO's outlines, drawn, cover nearly the areas that the file says, crowds included."""
    scenes = instances(REAL)
    assert (len(scenes), len(scenes.categories)) == (80, 80)
    truths = [scenes[index].truth for index in range(10)]
    drawn = torch.cat([truth.masks().flatten(1).sum(1) for truth in truths])
    stated = torch.cat([truth.areas for truth in truths])
    assert ((drawn - stated).abs() / stated).median() < 0.01
