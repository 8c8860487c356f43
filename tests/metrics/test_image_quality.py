"""Quality of single images: AP over one ranking, and mean IoU."""

import math

import pytest
import torch
from torch import Tensor

from src.metrics.image_quality import image_ap, image_iou
from src.metrics.mean_iou import VOID, MeanIoU


def squares() -> Tensor:
    """Three masks (3, 32, 32) that do not overlap."""
    masks = torch.zeros(3, 32, 32, dtype=torch.bool)
    for i in range(3):
        masks[i, 10 * i : 10 * i + 8, 4:24] = True
    return masks


LABELS, NO_CROWD = torch.tensor([0, 1, 1]), torch.zeros(3, dtype=torch.bool)


def ap(scores: list[float], labels: list[int], masks: Tensor, crowd: Tensor = NO_CROWD) -> float:
    return image_ap(torch.tensor(scores), torch.tensor(labels), masks, squares(), LABELS, crowd)


def test_truth_against_itself_is_one() -> None:
    """Whatever the scores are."""
    assert ap([0.3, 0.9, 0.5], [0, 1, 1], squares()) == pytest.approx(1)


def test_nothing_found_is_zero_and_nothing_to_find_is_nan() -> None:
    """Crowds alone are nothing to find."""
    assert ap([], [], squares()[:0]) == 0
    assert math.isnan(ap([0.9], [0], squares()[:1], torch.ones(3, dtype=torch.bool)))


def test_a_class_that_is_not_there_costs_if_it_is_sure() -> None:
    """A false detection above the true ones lowers the measure; below them it does not matter."""
    masks = torch.cat([squares(), squares()[:1]])
    assert ap([0.9, 0.9, 0.9, 0.95], [0, 1, 1, 7], masks) == pytest.approx(0.75, abs=0.01)
    assert ap([0.9, 0.9, 0.9, 0.1], [0, 1, 1, 7], masks) == pytest.approx(1)


def test_half_of_what_is_there() -> None:
    """Two of three found: precision 1 up to recall 2/3."""
    assert ap([0.9, 0.9], [0, 1], squares()[:2]) == pytest.approx(67 / 101, abs=0.01)


def test_the_right_place_under_the_wrong_class_is_wrong() -> None:
    """Matching is by class."""
    assert ap([0.9], [1], squares()[:1]) == 0


def test_iou_of_one_image_is_that_of_the_metric() -> None:
    """For random maps with void."""
    torch.manual_seed(0)
    pred, truth = torch.randint(0, 4, (20, 30)), torch.randint(0, 3, (20, 30))
    truth[:5] = VOID
    metric = MeanIoU(5)
    metric.update(pred, truth)
    assert image_iou(pred, truth, 5) == pytest.approx(float(metric.compute()["miou"]), rel=1e-5)
    assert math.isnan(image_iou(pred, torch.full_like(truth, VOID), 5))
