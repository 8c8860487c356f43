import numpy as np
import pytest
import torch

from src.data.targets import Category, Sample, Truth, collate, pack

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
        ("semantic", [0, 2], [[1, 1, 2, 0], [1, 1, 2, 0]]),
    ],
)
def test_a_task_asks_for_its_own_segments(segmentation: str, labels: list[int], map_: list[list[int]]):
    """Panoptic targets are all segments, instance targets the things, semantic targets one per class; no crowds."""
    target = truth().for_task(CATEGORIES, segmentation)
    assert target.labels.tolist() == labels
    assert target.segments[0].tolist() == map_
    assert not target.crowd.any()


def test_merged_areas_add_up():
    """A class's segment is as large as its parts together."""
    assert truth().merge().areas.tolist() == [4.0, 1.0, 2.0]


@pytest.mark.parametrize("segmentation", ["panoptic", "instance", "semantic"])
def test_nothing_annotated_is_no_target(segmentation: str):
    """An image without segments gives no segments, in any task."""
    empty = truth().select(torch.zeros(4, dtype=torch.bool))
    target = empty.for_task(CATEGORIES, segmentation)
    assert len(target.labels) == 0
    assert target.masks().shape == (0, 2, 4)


def test_an_unknown_task_is_named():
    """A task that does not exist is refused with the list of those that do."""
    with pytest.raises(ValueError, match="'semantics', expected one of panoptic, instance, semantic"):
        truth().for_task(CATEGORIES, "semantics")


def test_a_batch_stacks_nothing():
    """Images of different sizes lie side by side in a batch, in order."""
    samples = [Sample(torch.zeros(3, h, 5, dtype=torch.uint8), truth(), h, str(h)) for h in (4, 7)]
    batch = collate(samples)
    assert [image.shape[1] for image in batch.images] == batch.image_ids == [4, 7]
