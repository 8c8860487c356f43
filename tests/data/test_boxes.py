"""Boxes of objects: read, drawn where there is no mask, and refused where they are none."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from src.data.coco import CocoInstances, CocoPanoptic
from src.data.export import export_coco
from src.data.instance_truth import InstanceTruth
from src.data.module import SegmentationData
from src.data.problems import DataError, Kind, Problem
from src.data.shapes import Shapes
from src.data.transforms import LargeScaleJitter, RandomResize, ResizeShortestEdge
from src.metrics.average_precision import BoxAP

SCENES = Shapes(6, size=64, seed=5, crowd=0.5)
Change = Callable[[Any], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        export_coco(SCENES, tmp_path, split)
    return tmp_path


def edit(root: Path, change: Change, split: str = "val") -> Path:
    """Change an annotation file of instances."""
    file = root / "annotations" / f"instances_{split}2017.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return file


def no_masks(document: Any) -> None:
    """As detection data sets are written."""
    for entry in document["annotations"]:
        del entry["segmentation"]


def first(**values: Any) -> Change:
    """Change the first annotation."""
    return lambda document: document["annotations"][0].update(values)


def both(*changes: Change) -> Change:
    def change(document: Any) -> None:
        for one in changes:
            one(document)

    return change


def instances(root: Path, split: str = "val", **settings: Any) -> CocoInstances:
    return CocoInstances(root / f"{split}2017", root / "annotations" / f"instances_{split}2017.json", **settings)


def collected(root: Path, **settings: Any) -> tuple[CocoInstances, list[Problem]]:
    """Scenes whose problems are kept, and these problems, those of each image too."""
    problems: list[Problem] = []

    def keep(new: Iterable[Problem]) -> None:
        problems.extend(new)

    scenes = instances(root, report=keep, **settings)
    problems += [problem for index in range(len(scenes)) for problem in scenes.problems_of(index)]
    return scenes, problems


def data(root: Path, segmentation: str = "boxes", on_flaw: str = "refuse") -> SegmentationData:
    scenes = {
        split: partial(
            CocoInstances, root / f"{split}2017", root / "annotations" / f"instances_{split}2017.json", split == "val"
        )
        for split in ("train", "val")
    }
    return SegmentationData(
        **scenes,
        augment=LargeScaleJitter(64),
        resize=ResizeShortestEdge(64, 64),
        segmentation=segmentation,
        batch_size=2,
        eval_batch_size=2,
        num_workers=0,
        seed=0,
        on_flaw=on_flaw,
    )


def test_annotated_boxes_come_back_to_the_fraction_of_a_pixel(root: Path) -> None:
    """Those of the file, crowds too, as left, top, right and bottom; objects without one have their mask's."""
    boxes = [[1.25, 2.5, 30.0, 20.75], [3.0, 4.0, 10.5, 11.0]]

    def change(document: Any) -> None:
        entries = document["annotations"]
        for entry in entries:
            del entry["bbox"]
        entries[0].update(bbox=boxes[0], iscrowd=1)
        entries[1].update(bbox=boxes[1], image_id=entries[0]["image_id"])

    scenes = instances(edit(root, change).parents[1])
    place = next(index for index in range(len(scenes)) if 1 in scenes.described(index).ids)
    truth = scenes[place].truth
    ids = scenes.described(place).ids.tolist()
    assert len(ids) > 2
    assert truth.crowd[ids.index(1)]
    for id_, (left, top, width, height) in enumerate(boxes, 1):
        assert truth.boxes()[ids.index(id_)].tolist() == [left, top, left + width, top + height]
    others = [n for n, id_ in enumerate(ids) if id_ > 2]
    assert torch.equal(truth.boxes()[others], truth._replace(annotated_boxes=None).boxes()[others])


def test_panoptic_data_and_shapes_have_the_boxes_of_their_segments(root: Path) -> None:
    """Files of panoptic segments give the same boxes of things as those of instances, and as the scenes themselves."""
    panoptic = CocoPanoptic(
        root / "val2017", root / "annotations/panoptic_val2017.json", root / "panoptic_val2017", keep_empty=True
    )
    for ours, theirs, drawn in zip(panoptic, instances(root), SCENES, strict=True):
        target = ours.truth.for_task(panoptic.categories, "boxes")
        assert len(target.labels)
        assert all(panoptic.categories[label].isthing for label in target.labels)
        assert_close(target.boxes(), theirs.truth.select(~theirs.truth.crowd).boxes())
        assert_close(target.boxes(), drawn.truth.for_task(SCENES.categories, "boxes").boxes())


def test_boxes_alone_are_enough_for_boxes(root: Path) -> None:
    """Data without masks train and validate a detector: the same boxes, drawn as rectangles."""
    with_masks = [sample.truth.boxes() for sample in data(root).val_scenes]
    for split in ("train", "val"):
        edit(root, no_masks, split)
    made = data(root)
    assert len(made.train_scenes)
    assert not [problem for _, problem in made.problems if problem.breaks]
    for sample, boxes in zip(made.val_scenes, with_masks, strict=True):
        assert_close(sample.truth.boxes(), boxes)
        assert_close(sample.truth._replace(annotated_boxes=None).boxes(), boxes)  # rectangles, of whole pixels here
        for mask, (left, top, right, bottom) in zip(sample.truth.masks(), boxes.tolist(), strict=True):
            assert mask.sum() == (right - left) * (bottom - top)


@pytest.mark.parametrize("empty", [None, [], [[]]], ids=["null", "no part", "empty part"])
def test_empty_segmentations_count_as_none(root: Path, empty: Any) -> None:
    """As many tools write them; a mask that is there and broken stays an error."""
    scenes, problems = collected(edit(root, first(segmentation=empty)).parents[1], masks=False)
    broken = [problem for problem in problems if problem.breaks]
    assert [problem.kind for problem in broken] == ([Kind.OUTLINE] if empty else [])
    assert len(scenes) == len(SCENES)


@pytest.mark.parametrize("segmentation", ["instance", "panoptic", "semantic"])
def test_boxes_alone_are_refused_for_masks(root: Path, segmentation: str) -> None:
    """In one line that says what to do; and so is a single object without a mask."""
    edit(root, no_masks)
    with pytest.raises(DataError, match=r"^[^\n]*has boxes only, in all of its [^\n]*use segmentation=boxes[^\n]*$"):
        _ = data(root, segmentation).val_scenes
    edit(root, first(segmentation=[]), "train")
    with pytest.raises(DataError, match=r"annotation 1 has no segmentation[^\n]*use segmentation=boxes"):
        instances(root, "train")


NO_BOXES = {
    "zero width": [5, 5, 0, 7],
    "negative height": [5, 5, 3, -7],
    "nan": [5, float("nan"), 3, 7],
    "infinite": [5, 5, float("inf"), 7],
    "text": ["5", 5, 3, 7],
    "three numbers": [5, 5, 3],
    "not a list": {"x": 5},
}


@pytest.mark.parametrize("box", NO_BOXES.values(), ids=NO_BOXES)
def test_what_is_no_box_is_a_problem(root: Path, box: Any) -> None:
    """Named with its annotation; refused, or its image skipped. With a mask, the mask's box counts, with a warning."""
    plain = {sample.image_id: sample.truth.boxes() for sample in instances(root)}
    file = edit(root, first(bbox=box))
    scenes, problems = collected(root, masks=False)
    assert [problem.kind for problem in problems if "bbox" in problem.found] == [Kind.READ_AS]
    assert_close({sample.image_id: sample.truth.boxes() for sample in scenes}, plain)
    edit(root, both(no_masks, first(bbox=box)))
    with pytest.raises(DataError, match=r"annotation 1 has bbox .*expected left, top, width and height") as error:
        instances(root, masks=False)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    skipping = data(root, on_flaw="skip")
    assert len(skipping.val_scenes) == len(SCENES) - 1
    assert Kind.BOX in {problem.kind for _, problem in skipping.problems}


def test_neither_box_nor_mask_is_a_problem(root: Path) -> None:
    """Of this object."""
    edit(root, both(no_masks, lambda document: document["annotations"][0].pop("bbox")))
    with pytest.raises(DataError, match="annotation 1 has neither a bbox nor a segmentation"):
        instances(root, masks=False)


def test_boxes_over_the_edge_are_cut_with_a_warning(root: Path) -> None:
    """What lies inside the image is left; a pixel over the edge is nothing to speak of."""
    edit(root, both(no_masks, first(bbox=[50, -3, 20, 30])))
    scenes, problems = collected(root, masks=False)
    assert [problem.kind for problem in problems if "annotation 1 " in str(problem)] == [Kind.OVER_EDGE]
    place = next(index for index in range(len(scenes)) if 1 in scenes.described(index).ids)
    number = scenes.described(place).ids.tolist().index(1)
    assert scenes[place].truth.boxes()[number].tolist() == [50, 0, 64, 27]
    edit(root, first(bbox=[50, -0.5, 14.5, 30]))
    assert not [problem for problem in collected(root, masks=False)[1] if problem.kind is Kind.OVER_EDGE]


@pytest.mark.parametrize("box", [[70, 5, 9, 9], [5, -30, 9, 20], [40, 40, 90, 90]], ids=["right", "above", "half"])
def test_boxes_outside_the_image_are_refused(root: Path, box: list[float]) -> None:
    """By reading the image and by validation, or the image is skipped: the file gives other units or corners."""
    edit(root, both(no_masks, first(bbox=box)))
    scenes, problems = collected(root, masks=False)
    assert Kind.OUTSIDE in {problem.kind for problem in problems}
    place = next(index for index in range(len(scenes)) if 1 in scenes.described(index).ids)
    with pytest.raises(
        DataError, match=r"annotation 1 has a box that spans x .*expected x from 0 to 64, y from 0 to 64"
    ):
        _ = scenes[place]
    skipping = data(root, on_flaw="skip")
    assert len(skipping.val_scenes) == len(SCENES) - 1
    _ = [sample.image for sample in skipping.val_scenes]


def test_tasks_of_masks_do_not_look_at_boxes(root: Path) -> None:
    """Data that were fine for instances stay fine, whatever their boxes."""
    edit(root, first(bbox=[900, -5, 0, 3]))
    assert not [problem for problem in collected(root)[1] if problem.breaks or "bbox" in problem.found]
    assert [sample.truth for sample in instances(root)]


def test_gaps_in_category_ids_and_images_without_objects(root: Path) -> None:
    """Class indices count the categories of the file; an image without an object has no box and is read."""

    def change(document: Any) -> None:
        number_of = {category["id"]: 7 + 10 * place for place, category in enumerate(document["categories"])}
        for category in document["categories"]:
            category["id"] = number_of[category["id"]]
        for entry in document["annotations"]:
            entry["category_id"] = number_of[entry["category_id"]]
        document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] != 2]

    plain = [sample.truth for sample in instances(root)]
    edit(root, both(no_masks, change))
    for sample, before in zip(instances(root, masks=False), plain, strict=True):
        if sample.image_id == 2:
            target = sample.truth.for_task(SCENES.categories, "boxes")
            assert target.boxes().shape == (0, 4)
        else:
            assert torch.equal(sample.truth.labels, before.labels)
            assert_close(sample.truth.boxes(), before.boxes())


def test_box_ap_of_a_file_of_its_own(root: Path) -> None:
    """Truth read from a separate file of boxes, against itself, is one; sizes are its annotated areas."""
    file = edit(root, no_masks)
    scenes = instances(root, masks=False)
    truth = InstanceTruth(str(file), scenes.categories, scenes, masks=False)
    metric = BoxAP(range(len(scenes.categories)))
    metric.truth = truth
    for sample in scenes:
        _, labels, crowd, areas, boxes = sample.truth
        nothing = boxes[:0], labels[:0], crowd[:0], areas[:0]
        scores = torch.ones(int((~crowd).sum()))
        metric.update(sample.image_id, (64, 64), scores, labels[~crowd], boxes[~crowd], *nothing)
    assert metric.compute()["box_ap"].item() == pytest.approx(1)


def test_no_thing_is_nothing_to_detect(root: Path) -> None:
    """Data of stuff alone are refused for boxes as for instances."""

    def change(document: Any) -> None:
        for category in document["categories"]:
            category["isthing"] = 0

    edit(root, change)
    with pytest.raises(ValueError, match=r"segmentation=boxes: none of the data's 5 classes is a thing"):
        _ = data(root).val_scenes


def test_a_resized_image_keeps_its_annotated_boxes(root: Path) -> None:
    """They grow with it, to the fraction of a pixel, unless something is cut off: then pixels say where objects end."""
    sample = next(iter(instances(root)))
    sample = sample._replace(truth=sample.truth.for_task(instances(root).categories, "boxes"))
    rng = np.random.default_rng(0)
    whole = RandomResize([96], 200, crop=0, flip=0)(sample, rng)
    assert whole.image.shape == (3, 96, 96)
    assert_close(whole.truth.boxes(), sample.truth.boxes() * 1.5)
    mirrored = RandomResize([96], 200, crop=0, flip=1)(sample, rng)
    assert_close(mirrored.truth.boxes()[:, [0, 2]], 96 - whole.truth.boxes()[:, [2, 0]])
    cut = RandomResize([96], 200, crop=1, crop_shorts=[64], crop_sides=(30, 40), flip=0)(sample, rng)
    assert cut.truth.annotated_boxes is None
    assert (cut.truth.boxes()[:, 2:] <= torch.tensor(cut.image.shape[:0:-1])).all()


def test_detrs_jitter_draws_sizes_as_published() -> None:
    """Short sides from 480 to 800 in steps of 32, long ones up to 1333; crops too; images are never padded."""
    scenes = Shapes(1, size=64)
    sample = scenes[0]._replace(image=torch.randint(0, 256, (3, 300, 420), dtype=torch.uint8))
    segments = torch.arange(1, 5, dtype=torch.int32).view(1, 2, 2).repeat_interleave(150, 1).repeat_interleave(210, 2)
    columns = torch.arange(4), torch.zeros(4).bool(), torch.full((4,), 150.0 * 210)
    sample = sample._replace(truth=type(sample.truth)(segments, *columns))
    jitter, sizes = RandomResize(), []
    for seed in range(40):
        out = jitter(sample, np.random.default_rng(seed))
        assert out.image.shape[-2:] == out.truth.segments.shape[-2:]
        sizes.append(out.image.shape[-2:])
        assert (out.truth.segments > 0).all()  # nothing is padded
        same = jitter(sample, np.random.default_rng(seed))
        assert torch.equal(same.image, out.image)
    shorts = [min(size) for size in sizes]
    assert {*shorts} <= {*range(480, 801, 32)}
    assert len({*shorts}) > 6
    assert max(max(size) for size in sizes) <= 1333
    whole = [round(max(size) / min(size), 1) == 1.4 for size in sizes]
    assert 8 < sum(whole) < 32


def test_what_a_crop_shows_is_where_it_was() -> None:
    """Image and map of a cropped sample agree: a bright rectangle stays the segment it is."""
    segments = torch.zeros(1, 300, 420, dtype=torch.int32)
    segments[0, 100:200, 150:300] = 1
    image = (segments * 255).to(torch.uint8).expand(3, -1, -1)
    sample = Shapes(1)[0]._replace(image=image)
    one = torch.ones(1)
    sample = sample._replace(truth=type(sample.truth)(segments, one.long() - 1, one < 0, one))
    for seed in range(10):
        out = RandomResize([96], 200, crop=1, crop_shorts=[80], crop_sides=(40, 60))(
            sample, np.random.default_rng(seed)
        )
        assert ((out.image[0] > 127) == (out.truth.segments[0] > 0)).float().mean() > 0.97


def test_crop_sides_in_order() -> None:
    """The least first."""
    with pytest.raises(ValueError, match="crop_sides are 600 and 384, expected 0 < least <= greatest"):
        RandomResize(crop_sides=(600, 384))
