import pytest
import torch

from src.metrics.mean_iou import VOID, MeanIoU, semantic_map


def miou(pred, truth, num_classes=4):
    metric = MeanIoU(num_classes)
    metric.update(torch.tensor([pred]), torch.tensor([truth]))
    return float(metric.compute()["miou"])


def test_hand_computed():
    """Class 0 overlaps 1 of 2 and class 1 overlaps 2 of 3; classes that do not occur are not averaged."""
    assert miou([0, 1, 1, 1], [0, 0, 1, 1]) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_the_mean_is_that_of_the_classes():
    """Each by hand, one only predicted with 0; those that do not occur have none."""
    metric = MeanIoU(5)
    metric.update(torch.tensor([[0, 1, 1, 1, 3, 4]]), torch.tensor([[0, 0, 1, 1, 0, VOID]]))
    by_class = metric.by_class()
    assert by_class == {0: {"iou": 1 / 3}, 1: {"iou": 2 / 3}, 3: {"iou": 0}}
    assert float(metric.compute()["miou"]) == pytest.approx(sum(one["iou"] for one in by_class.values()) / 3)


def test_a_class_only_predicted_counts():
    """A class predicted in vain enters the mean with 0, on void pixels it does not."""
    assert miou([0, 0, 2], [0, 0, 0]) == pytest.approx((2 / 3 + 0) / 2)
    assert miou([0, 0, 2], [0, 0, VOID]) == 1


def test_itself_is_one_and_void_is_nan():
    """Truth against itself is 1; where all is void there is no mean."""
    assert miou([0, 3, 1], [0, 3, 1]) == 1
    assert miou([0, 3], [VOID, VOID]) != miou([0, 3], [VOID, VOID])


def test_pixels_are_summed_over_images():
    """Two images give the IoU of their pixels together, not the mean of two IoUs."""
    metric = MeanIoU(1 + 1)
    metric.update(torch.tensor([[0]]), torch.tensor([[0]]))
    metric.update(torch.tensor([[0, 0, 0]]), torch.tensor([[0, 1, 1]]))
    assert float(metric.compute()["miou"]) == pytest.approx((2 / 4 + 0) / 2)


@pytest.mark.parametrize("pred", [4, 255, -1])
def test_a_prediction_must_be_a_class(pred):
    """A predicted value that is no class is a ValueError naming it."""
    with pytest.raises(ValueError, match=str(pred)):
        miou([pred], [0])


def test_a_class_may_have_any_number():
    """The 256th class, whose index is 255, and those after it count like others."""
    assert miou([254, 255, 255, 299, 0], [254, 255, 256, 299, VOID], 300) == pytest.approx((1 + 1 / 2 + 0 + 1) / 4)
    metric = MeanIoU(300)
    metric.update(torch.tensor([[255, 256]]), torch.tensor([[255, 299]]))
    assert metric.by_class() == {255: {"iou": 1}, 256: {"iou": 0}, 299: {"iou": 0}}


def test_semantic_map():
    """Each pixel has the class of its first segment, and void where there is none, in one layer or several."""
    segments = torch.tensor([[[0, 1, 2, 0]], [[3, 3, 0, 0]]], dtype=torch.int32)
    labels = torch.tensor([5, 6, 7])
    assert semantic_map(segments, labels).tolist() == [[7, 5, 6, VOID]]
    assert semantic_map(segments[:1], labels).tolist() == [[VOID, 5, 6, VOID]]
    assert semantic_map(torch.zeros(1, 1, 2, dtype=torch.int32), labels[:0]).tolist() == [[VOID, VOID]]
