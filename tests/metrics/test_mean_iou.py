import pytest
import torch

from src.metrics.mean_iou import MeanIoU, semantic_map


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
    metric.update(torch.tensor([[0, 1, 1, 1, 3, 4]]), torch.tensor([[0, 0, 1, 1, 0, 255]]))
    by_class = metric.by_class()
    assert by_class == {0: {"iou": 1 / 3}, 1: {"iou": 2 / 3}, 3: {"iou": 0}}
    assert float(metric.compute()["miou"]) == pytest.approx(sum(one["iou"] for one in by_class.values()) / 3)


def test_a_class_only_predicted_counts():
    """A class predicted in vain enters the mean with 0, on void pixels it does not."""
    assert miou([0, 0, 2], [0, 0, 0]) == pytest.approx((2 / 3 + 0) / 2)
    assert miou([0, 0, 2], [0, 0, 255]) == 1


def test_itself_is_one_and_void_is_nan():
    """Truth against itself is 1; where all is void there is no mean."""
    assert miou([0, 3, 1], [0, 3, 1]) == 1
    assert miou([0, 3], [255, 255]) != miou([0, 3], [255, 255])


def test_pixels_are_summed_over_images():
    """Two images give the IoU of their pixels together, not the mean of two IoUs."""
    metric = MeanIoU(1 + 1)
    metric.update(torch.tensor([[0]]), torch.tensor([[0]]))
    metric.update(torch.tensor([[0, 0, 0]]), torch.tensor([[0, 1, 1]]))
    assert float(metric.compute()["miou"]) == pytest.approx((2 / 4 + 0) / 2)


@pytest.mark.parametrize("pred", [4, 255, -1])
def test_a_prediction_must_be_a_class(pred):
    """A predicted value that is no class is a ValueError naming it, and so are more classes than 255."""
    with pytest.raises(ValueError, match=str(pred)):
        miou([pred], [0])
    with pytest.raises(ValueError, match="256"):
        MeanIoU(256)


def test_semantic_map():
    """Each pixel has the class of its first segment, and 255 where there is none, in one layer or several."""
    segments = torch.tensor([[[0, 1, 2, 0]], [[3, 3, 0, 0]]], dtype=torch.int32)
    labels = torch.tensor([5, 6, 7])
    assert semantic_map(segments, labels).tolist() == [[7, 5, 6, 255]]
    assert semantic_map(segments[:1], labels).tolist() == [[255, 5, 6, 255]]
    assert semantic_map(torch.zeros(1, 1, 2, dtype=torch.int32), labels[:0]).tolist() == [[255, 255]]
