import numpy as np
import pytest
import torch

from src.data.targets import SEGMENTATIONS, Category, Sample, Truth, collate, pack

CATEGORIES = [
    Category(1, "cat", True, (0, 0, 0)),
    Category(2, "dog", True, (0, 0, 0)),
    Category(9, "sky", False, (0,) * 3),
]


def truth() -> Truth:
    segments = torch.tensor([[[1, 2, 3, 4], [1, 2, 3, 0]]], dtype=torch.int32)
    labels, crowd = torch.tensor([0, 0, 2, 1]), torch.tensor([False, False, False, True])
    return Truth(segments, labels, crowd, torch.tensor([2.0, 2.0, 2.0, 1.0]))


def test_packed_masks_come_back():
    """Overlapping masks, packed in layers, are the same masks when taken apart."""
    masks = np.random.default_rng(0).random((12, 20, 30)) < 0.2
    layers = torch.from_numpy(pack(masks))
    none = torch.zeros(12)
    assert 1 < len(layers) <= 12
    assert torch.equal(Truth(layers, none.long(), none.bool(), none).masks(), torch.from_numpy(masks))


def test_masks_that_do_not_overlap_need_one_layer():
    """A partition of the pixels packs into a single map."""
    map_ = np.random.default_rng(0).integers(0, 6, (8, 9))
    assert np.array_equal(pack(map_ == np.arange(1, 6)[:, None, None]), map_[None])


def test_selected_segments_keep_their_masks():
    """Selecting segments selects their masks and closes the gaps in the numbering."""
    keep = torch.tensor([False, True, False, True])
    assert torch.equal(truth().select(keep).masks(), truth().masks()[keep])


@pytest.mark.parametrize(
    ("segmentation", "labels", "map_"),
    [
        ("panoptic", [0, 0, 2], [[1, 2, 3, 0], [1, 2, 3, 0]]),
        ("instance", [0, 0], [[1, 2, 0, 0], [1, 2, 0, 0]]),
        ("boxes", [0, 0], [[1, 2, 0, 0], [1, 2, 0, 0]]),
        ("semantic", [0, 2], [[1, 1, 2, 0], [1, 1, 2, 0]]),
    ],
)
def test_a_task_asks_for_its_own_segments(segmentation: str, labels: list[int], map_: list[list[int]]):
    """Panoptic targets are all segments, instances and boxes the things, semantic targets one per class; no crowds."""
    target = truth().for_task(CATEGORIES, segmentation)
    assert target.labels.tolist() == labels
    assert target.segments[0].tolist() == map_
    assert not target.crowd.any()


def test_merged_areas_add_up():
    """A class's segment is as large as its parts together."""
    assert truth().merge().areas.tolist() == [4.0, 1.0, 2.0]


@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
def test_nothing_annotated_is_no_target(segmentation: str):
    """An image without segments gives no segments, in any task."""
    empty = truth().select(torch.zeros(4, dtype=torch.bool))
    target = empty.for_task(CATEGORIES, segmentation)
    assert len(target.labels) == 0
    assert target.masks().shape == (0, 2, 4)


def test_an_unknown_task_is_named():
    """A task that does not exist is refused with the list of those that do."""
    with pytest.raises(ValueError, match="'semantics', expected one of panoptic, instance, semantic, boxes"):
        truth().for_task(CATEGORIES, "semantics")


def test_a_batch_stacks_nothing():
    """Images of different sizes lie side by side in a batch, in order."""
    samples = [Sample(torch.zeros(3, h, 5, dtype=torch.uint8), truth(), h, str(h)) for h in (4, 7)]
    batch = collate(samples)
    assert [image.shape[1] for image in batch.images] == batch.image_ids == [4, 7]


def annotated(width: int = 7, height: int = 5) -> Truth:
    """Three overlapping objects in a map with boxes of their own, in fractions of pixels."""
    masks = np.zeros((3, height, width), bool)
    masks[0, 1:3, 2:6], masks[1, 2:4, 1:4], masks[2, 0, 0] = True, True, True
    boxes = torch.tensor([[1.75, 0.5, 6.25, 3.0], [1.0, 2.0, 4.0, 4.0], [0.0, 0.0, 0.5, 0.75]])
    columns = (torch.tensor([0, 1, 0]), torch.zeros(3, dtype=torch.bool), torch.tensor([8.0, 6.0, 1.0]))
    return Truth(torch.from_numpy(pack(masks)), *columns, boxes)


def test_boxes_are_the_extents_of_segments_unless_annotated():
    """Left, top, right and bottom of the pixels, right and bottom outside; annotated ones come as they are."""
    truth = annotated()
    assert torch.equal(truth.boxes(), truth.annotated_boxes)
    extents = truth._replace(annotated_boxes=None).boxes()
    assert extents.dtype == torch.float32
    assert extents.tolist() == [[2, 1, 6, 3], [1, 2, 4, 4], [0, 0, 1, 1]]


def test_boxes_of_masks_are_those_of_a_slow_loop():
    """Segments scattered over layers, and segments without a pixel, which have a box of zeros."""
    chance = torch.Generator().manual_seed(0)
    segments = torch.randint(0, 40, (2, 13, 17), generator=chance, dtype=torch.int32)
    segments[torch.rand(segments.shape, generator=chance) < 0.9] = 0
    none = torch.zeros(45)
    truth = Truth(segments, none.long(), none.bool(), none)
    expected = []
    for mask in truth.masks():
        rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
        expected.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if rows else [0, 0, 0, 0])
    assert [0, 0, 0, 0] in expected
    assert truth.boxes().tolist() == expected


@pytest.mark.parametrize("drop", [True, False], ids=["extents", "annotated"])
def test_a_mirrored_truth_has_mirrored_boxes(drop: bool):
    """Boxes flip with the pixels, and twice is once; heights stay."""
    truth = annotated()._replace(annotated_boxes=None) if drop else annotated()
    left, top, right, bottom = truth.boxes().unbind(1)
    assert torch.equal(truth.mirrored().boxes(), torch.stack([7 - right, top, 7 - left, bottom], 1))
    assert torch.equal(truth.mirrored().mirrored().boxes(), truth.boxes())
    assert torch.equal(truth.mirrored().masks(), truth.masks().flip(-1))


def test_selected_segments_keep_their_boxes():
    """As their masks; a merged segment has the extents of its parts."""
    keep = torch.tensor([False, True, True])
    assert torch.equal(annotated().select(keep).boxes(), annotated().boxes()[keep])
    assert annotated().merge().boxes().tolist() == [[0, 0, 6, 3], [1, 2, 4, 4]]


def test_boxes_to_learn_have_a_size():
    """The target of boxes has them all at hand, without segments that no pixel shows."""
    hidden = truth()._replace(segments=truth().segments.where(truth().segments != 2, 0))
    target = hidden.for_task(CATEGORIES, "boxes")
    assert target.labels.tolist() == [0]
    assert target.annotated_boxes.tolist() == [[0, 0, 1, 2]]
    assert torch.equal(annotated().for_task(CATEGORIES, "boxes").boxes(), annotated().boxes())


def test_an_empty_image_has_no_boxes():
    """Four columns all the same."""
    none = torch.zeros(0)
    empty = Truth(torch.zeros(1, 4, 5, dtype=torch.int32), none.long(), none.bool(), none)
    assert empty.boxes().shape == empty.for_task(CATEGORIES, "boxes").boxes().shape == (0, 4)
