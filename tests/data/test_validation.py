"""A data set looked over: what is wrong is found and named, all of it at once, and nothing where all is well."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.checks.class_counts import count
from src.data.checks.inspection import finding_in
from src.data.checks.validation import Survey, Validation
from src.data.coco import CocoInstances, CocoPanoptic
from src.data.export import export_coco
from src.data.module import SegmentationData
from src.data.problems import Kind, Problem
from src.data.scenes import Scenes
from src.data.shapes import Shapes
from src.data.targets import Sample
from src.data.transforms import ResizeShortestEdge

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "coco"
SCENES = Shapes(8, size=64, seed=5, crowd=0.5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        export_coco(SCENES, tmp_path, split)
    return tmp_path


def data(train: Callable[..., Scenes], val: Callable[..., Scenes]) -> SegmentationData:
    return SegmentationData(train, val, lambda sample, rng: sample, ResizeShortestEdge(), "panoptic", 1, 1, 0, 0)


def coco(root: Path, layout: str) -> SegmentationData:
    def recipe(split: str, **more: Any) -> Callable[..., Scenes]:
        kind = CocoPanoptic if layout == "panoptic" else CocoInstances
        masks = {"mask_folder": root / f"panoptic_{split}2017"} if layout == "panoptic" else {}
        file = root / "annotations" / f"{layout}_{split}2017.json"
        return partial(kind, image_folder=root / f"{split}2017", annotation_file=file, **masks, **more)

    return data(recipe("train", keep_empty=False), recipe("val"))


def look(data: Any, split: str = "val", decode: bool = True, samples: int = 0) -> list[Survey]:
    return Validation(split, decode, samples, progress=False, seed=0)(data)


def edit(root: Path, layout: str, change: Callable[[Any], None], split: str = "val") -> None:
    file = root / "annotations" / f"{layout}_{split}2017.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def entry(document: Any) -> Any:
    """The first annotation that is no crowd: an object, or of a panoptic file a segment of its fifth image."""
    segments = document["annotations"]
    if "segments_info" in segments[4]:
        segments = segments[4]["segments_info"]
    return next(one for one in segments if not one["iscrowd"])


IMAGE, MASK = "val2017/000000000004.png", "panoptic_val2017/000000000004.png"


def gone(root: Path, layout: str) -> str:
    (root / IMAGE).unlink()
    return IMAGE


def no_mask(root: Path, layout: str) -> str:
    (root / MASK).unlink()
    return MASK


def cut_short(root: Path, layout: str) -> str:
    (root / IMAGE).write_bytes((root / IMAGE).read_bytes()[:500])
    return IMAGE


def no_picture(root: Path, layout: str) -> str:
    (root / IMAGE).write_text("not a picture")
    return IMAGE


def cut_mask(root: Path, layout: str) -> str:
    (root / MASK).write_bytes((root / MASK).read_bytes()[:120])
    return MASK


def other_image_size(root: Path, layout: str) -> str:
    edit(root, layout, lambda document: document["images"][4].update(height=65))
    return f"{IMAGE}: is 64 x 64 (height x width), expected 65 x 64"


def other_mask_size(root: Path, layout: str) -> str:
    Image.open(root / MASK).crop((0, 0, 64, 60)).save(root / MASK)
    return f"{MASK}: is 60 x 64 (height x width), expected 64 x 64"


def in_the_mask_only(root: Path, layout: str) -> str:
    pixels = np.array(Image.open(root / MASK))
    pixels[0, :7] = [(n, 1, 2) for n in range(7)]
    Image.fromarray(pixels).save(root / MASK)
    return f"{MASK}: segment {', '.join(str(n + 256 + 2 * 65536) for n in range(5))} and 2 more is in the mask"


def in_the_json_only(root: Path, layout: str) -> str:
    new = {"id": 4242, "category_id": 1, "iscrowd": 0}
    edit(root, layout, lambda document: document["annotations"][4]["segments_info"].append(new))
    return f"{MASK}: segment 4242 is not in the mask"


def unknown_category(root: Path, layout: str) -> str:
    edit(root, layout, lambda document: entry(document).update(category_id=99))
    return "has category_id 99"


def image_twice(root: Path, layout: str) -> str:
    edit(root, layout, lambda document: document["images"].append(document["images"][4]))
    return "image 4 is listed 2 times"


def category_twice(root: Path, layout: str) -> str:
    edit(root, layout, lambda document: document["categories"].append(document["categories"][-1]))
    return "category 8 is listed 2 times"


def annotation_twice(root: Path, layout: str) -> str:
    edit(root, layout, lambda document: document["annotations"][3].update(id=document["annotations"][-1]["id"]))
    return "is listed 2 times"


def segment_twice(root: Path, layout: str) -> str:
    def change(document: Any) -> None:
        document["annotations"][4]["segments_info"].append(entry(document))

    edit(root, layout, change)
    return "image 4, segment "


def unlisted(root: Path, layout: str) -> str:
    edit(root, layout, lambda document: document["images"].pop(4))
    return "image 4 is annotated but not listed"


def half_a_file(root: Path, layout: str) -> str:
    file = root / "annotations" / f"{layout}_val2017.json"
    file.write_text(file.read_text()[:1000])
    return f"{layout}_val2017.json: not readable as JSON"


def outline(*polygons: list[float], area: float = 50.0) -> Callable[[Path, str], str]:
    def spoil(root: Path, layout: str) -> str:
        change = {"id": 777, "segmentation": [*polygons], "area": area}
        edit(root, layout, lambda document: entry(document).update(change))
        return "annotation 777 "

    return spoil


def run_lengths(size: list[int], counts: Any) -> Callable[[Path, str], str]:
    def spoil(root: Path, layout: str) -> str:
        change = {"id": 777, "segmentation": {"size": size, "counts": counts}, "area": 50}
        edit(root, layout, lambda document: entry(document).update(change))
        return "annotation 777 "

    return spoil


def object_twice(root: Path, layout: str) -> str:
    edit(root, layout, lambda document: document["annotations"].append(entry(document) | {"id": 777}))
    return "annotation 777 has almost the mask of annotation"


def without_objects(root: Path, layout: str) -> str:
    def change(document: Any) -> None:
        document["annotations"] = [one for one in document["annotations"] if one["image_id"] != 4]

    edit(root, layout, change)
    return "image 4 has no object"


BOTH, PANOPTIC, INSTANCES = ("panoptic", "instances"), ("panoptic",), ("instances",)
FAULTS: list[tuple[Callable[[Path, str], str], tuple[str, ...], Kind, bool]] = [  # the last: seen without decoding
    (gone, BOTH, Kind.MISSING, True),
    (no_mask, PANOPTIC, Kind.MISSING, True),
    (no_picture, BOTH, Kind.UNREADABLE, True),
    (cut_short, BOTH, Kind.UNREADABLE, False),
    (cut_mask, PANOPTIC, Kind.UNREADABLE, False),
    (half_a_file, BOTH, Kind.UNREADABLE, True),
    (other_image_size, BOTH, Kind.SIZE, True),
    (other_mask_size, PANOPTIC, Kind.SIZE, True),
    (run_lengths([32, 64], [32 * 64]), INSTANCES, Kind.SIZE, True),
    (in_the_mask_only, PANOPTIC, Kind.MASK_ONLY, False),
    (in_the_json_only, PANOPTIC, Kind.JSON_ONLY, False),
    (unknown_category, BOTH, Kind.CATEGORY, True),
    (image_twice, BOTH, Kind.REPEATED, True),
    (category_twice, BOTH, Kind.REPEATED, True),
    (annotation_twice, INSTANCES, Kind.REPEATED, True),
    (segment_twice, PANOPTIC, Kind.REPEATED, True),
    (unlisted, BOTH, Kind.UNLISTED, True),
    (outline(), INSTANCES, Kind.OUTLINE, True),
    (outline([1, 1, 9, 9]), INSTANCES, Kind.OUTLINE, True),
    (outline([1, 1, 9, 1, 9, 9], [1, 1, 9, 9]), INSTANCES, Kind.READ_AS, True),
    (outline([1, 1, 9, 9, 5, 1, 3]), INSTANCES, Kind.OUTLINE, True),
    (outline([1, 1, 9, 1, float("nan"), 9]), INSTANCES, Kind.OUTLINE, True),
    (outline([1, 1, 9, 1, 1e30, 1e30]), INSTANCES, Kind.OUTLINE, True),
    (run_lengths([64, 64], "nonsense"), INSTANCES, Kind.OUTLINE, True),
    (run_lengths([64, 64], "52"), INSTANCES, Kind.OUTLINE, True),
    (run_lengths([64, 64], [5, 3]), INSTANCES, Kind.OUTLINE, True),
    (run_lengths([64, 64], [64 * 64]), INSTANCES, Kind.EMPTY, True),
    (outline([50, 50, 190, 50, 190, 60, 50, 60]), INSTANCES, Kind.OUTSIDE, True),
    (outline([50, 50, 70, 50, 70, 60, 50, 60]), INSTANCES, Kind.OVER_EDGE, True),
    (outline([5, 5, 5.1, 5, 5.1, 5.1], area=0.01), INSTANCES, Kind.SPECK, True),
    (object_twice, INSTANCES, Kind.OVERLAP, True),
    (without_objects, BOTH, Kind.BARE, True),
]
CASES = [
    pytest.param(spoil, layout, kind, seen, id=f"{kind.replace(' ', '_')}-{layout}-{number}")
    for number, (spoil, layouts, kind, seen) in enumerate(FAULTS)
    for layout in layouts
]


@pytest.mark.parametrize(("spoil", "layout", "kind", "seen"), CASES)
def test_every_fault_is_found_and_named(
    root: Path, spoil: Callable[[Path, str], str], layout: str, kind: Kind, seen: bool
) -> None:
    """Nothing else is said, and without decoding pictures what they alone show is not seen."""
    sentence = spoil(root, layout)
    (whole,), (quick,) = look(coco(root, layout)), look(coco(root, layout), decode=False)
    assert {problem.kind for problem in whole.problems} == {kind}
    assert any(sentence in str(problem) for problem in whole.problems)
    assert quick.problems == (whole.problems if seen else [])
    assert all(problem.breaks for problem in whole.problems) == (
        kind not in (Kind.OVER_EDGE, Kind.SPECK, Kind.OVERLAP, Kind.READ_AS, Kind.BARE)
    )


@pytest.mark.parametrize("layout", BOTH)
@pytest.mark.parametrize("decode", [True, False])
def test_a_sound_data_set_has_no_problem(root: Path, layout: str, decode: bool) -> None:
    """And all of it is counted, some of it painted."""
    surveys = look(coco(root, layout), "both", decode, samples=3)
    assert [one.split for one in surveys] == ["train", "val"]
    assert [one.problems for one in surveys if one.split == "val"] == [[]]
    assert {problem.kind for problem in surveys[0].problems} <= {Kind.BARE}  # left out of training
    assert [len(one.samples) for one in surveys] == [3, 3]
    counted = {row["class"]: sum(row[size] for size in ("small", "medium", "large")) for row in surveys[1].counts}
    names = [category.name for category in SCENES.categories]
    labels = torch.cat([scene.truth.labels[~scene.truth.crowd] for scene in SCENES])
    assert counted == {n: int((labels == i).sum()) for i, n in enumerate(names) if n in counted}


def test_all_faults_are_said_at_once(root: Path) -> None:
    """One hides no other: not a file that is missing, nor what the annotation file has wrong."""
    spoil = [unknown_category, category_twice, in_the_json_only]
    for one in spoil:
        one(root, "panoptic")
    (root / "val2017/000000000003.png").unlink()
    Image.open(root / "panoptic_val2017/000000000005.png").crop((0, 0, 9, 9)).save(
        root / "panoptic_val2017/000000000005.png"
    )
    (found,) = look(coco(root, "panoptic"))
    kinds = {Kind.CATEGORY, Kind.REPEATED, Kind.JSON_ONLY, Kind.MISSING, Kind.SIZE}
    assert {problem.kind for problem in found.problems} == kinds
    assert len(found.problems) == len(kinds)


def test_workers_find_what_one_process_finds(root: Path) -> None:
    """In the same order."""
    in_the_mask_only(root, "panoptic")
    (root / "val2017/000000000003.png").write_text("not a picture")
    made = coco(root, "panoptic")
    (alone,) = look(made)
    made.num_workers = 2
    (shared,) = look(made)
    assert len(alone.problems) == 2
    assert shared[:4] == alone[:4]


def test_samples_are_always_read(root: Path) -> None:
    """What decoding would show of them is said, also without decoding the others; they are not painted then."""
    cut_short(root, "panoptic")
    (found,) = look(coco(root, "panoptic"), decode=False, samples=8)
    assert [problem.kind for problem in found.problems] == [Kind.UNREADABLE]
    assert len(found.samples) == 7


def test_what_is_of_no_class_is_neither_counted_nor_painted(root: Path) -> None:
    """An unknown category is not taken for another."""
    (before,) = look(coco(root, "panoptic"))
    unknown_category(root, "panoptic")
    (found,) = look(coco(root, "panoptic"), samples=8)
    sizes = [sum(row[size] for row in one.counts for size in ("small", "medium", "large")) for one in (before, found)]
    assert sizes[1] == sizes[0] - 1
    assert len(found.samples) == 7


def test_splits_with_other_classes(root: Path) -> None:
    """Are one problem for each class; of other colours alone, none."""
    edit(root, "panoptic", lambda document: document["categories"][2].update(color=[1, 2, 3]))
    edit(root, "panoptic", lambda document: document["categories"][3].update(name="disc"))
    problems = look(coco(root, "panoptic"), "both", decode=False)[0].problems
    assert [problem.id for problem in problems if problem.breaks] == ["category 3"]


class Made(Scenes):
    """Scenes one of which is changed."""

    categories = SCENES.categories

    def __init__(self, change: Callable[[Sample], Sample]) -> None:
        self.change = change

    def __len__(self) -> int:
        return len(SCENES)

    def __getitem__(self, index: int) -> Sample:
        return self.change(SCENES[index]) if index == 4 else SCENES[index]


def truth(**parts: Any) -> Callable[[Sample], Sample]:
    def change(sample: Sample) -> Sample:
        made = {name: part(getattr(sample.truth, name)) for name, part in parts.items()}
        return sample._replace(truth=sample.truth._replace(**made))

    return change


def fails(sample: Sample) -> Sample:
    raise ValueError("a reader's own words")


@pytest.mark.parametrize(
    ("change", "kind", "found"),
    [
        (truth(segments=lambda one: one[:, :60]), Kind.SIZE, "is 60 x 64"),
        (truth(segments=lambda one: one + 1), Kind.MASK_ONLY, "has no class"),
        (truth(segments=lambda one: one.where(one != 1, 0)), Kind.EMPTY, "has a mask of 0 pixels"),
        (truth(labels=lambda one: one + 8), Kind.CATEGORY, "has class "),
        (lambda sample: sample._replace(truth=sample.truth.select(sample.truth.areas < 0)), Kind.BARE, "has no object"),
        (fails, Kind.REFUSED, "a reader's own words"),
    ],
)
def test_any_data_set_is_looked_over(change: Callable[[Sample], Sample], kind: Kind, found: str) -> None:
    """By reading it: a sample that contradicts itself, or cannot be read, is found whatever the format."""
    made = partial(Made, change)
    (one,) = look(data(made, made), decode=False)
    assert kind in {problem.kind for problem in one.problems}
    assert any(problem.found.startswith(found) for problem in one.problems)
    (sound,) = look(data(lambda: SCENES, lambda: SCENES), samples=1)
    assert not sound.problems
    assert sound.counts == count([finding_in(scene.truth).objects for scene in SCENES], SCENES.categories)


def test_sizes_are_those_of_coco() -> None:
    """Small below 32 x 32 pixels, large from 96 x 96; crowds and unknown areas apart."""
    sample = SCENES[0].truth._replace(
        labels=torch.zeros(6, dtype=torch.int64),
        crowd=torch.tensor([False] * 5 + [True]),
        areas=torch.tensor([1023.0, 1024.0, 9215.0, 9216.0, float("nan"), 5.0]),
    )
    row, *others = count(2 * [finding_in(sample).objects], SCENES.categories)
    sizes = {"small": 2, "medium": 4, "large": 2, "unknown size": 2, "crowd": 2}
    assert row == {"class": "sky", "thing": False, "images": 2} | sizes
    assert not any(other["images"] for other in others)


def test_what_has_no_images_is_refused() -> None:
    """As an exit table has none."""
    with pytest.raises(ValueError, match="data: object has no images, expected"):
        look(object())


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="needs the sample of real COCO files")
@pytest.mark.parametrize("layout", BOTH)
def test_real_files_are_fit(layout: str) -> None:
    """COCO's own have no problem, whether or not pictures are decoded."""
    for decode in (True, False):
        problems: list[Problem] = [one for split in look(coco(REAL, layout), "both", decode) for one in split.problems]
        assert not [str(problem) for problem in problems if problem.breaks]
