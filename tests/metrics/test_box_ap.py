"""Average precision of boxes."""

import contextlib
import io
import json
import math
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO as Annotations
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from src.data.coco import CocoInstances
from src.metrics.average_precision import BoxAP
from src.metrics.image_quality import image_box_ap

COCO = Path(__file__).parents[2].parent / "shared/data/coco"
SIZE = (40, 50)
A, B = [0.0, 0.0, 10.0, 10.0], [20.0, 20.5, 40.25, 30.0]


def boxes(*corners: list[float]) -> Tensor:
    return torch.tensor(corners).view(-1, 4)


def scores_of(metric: BoxAP) -> dict[str, float]:
    return {name: float(value) for name, value in metric.compute().items()}


def given(corners: Tensor, labels: list[int], scores: list[float] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ones(len(corners)) if scores is None else torch.tensor(scores), torch.tensor(labels).long(), corners


def truth(corners: Tensor, labels: list[int], crowd: tuple[int, ...] = (), areas: list[float] | None = None):
    area = (corners[:, 2:] - corners[:, :2]).prod(1) if areas is None else torch.tensor(areas)
    return corners, torch.tensor(labels).long(), torch.tensor([n in crowd for n in range(len(corners))]).bool(), area


def test_itself_is_one() -> None:
    """Truth against itself is 1, whatever fractions of pixels; nan for the sizes that do not occur."""
    metric = BoxAP([0, 7])
    metric.update(3, SIZE, *given(boxes(A, B), [7, 0]), *truth(boxes(A, B), [7, 0]))
    result = scores_of(metric)
    assert list(result) == ["box_ap", "box_ap50", "box_ap75", "box_ap_small", "box_ap_medium", "box_ap_large"]
    assert result["box_ap"] == result["box_ap_small"] == pytest.approx(1)
    assert math.isnan(result["box_ap_medium"])
    assert metric.by_class() == {0: {"box_ap": pytest.approx(1)}, 7: {"box_ap": pytest.approx(1)}}


def test_hand_computed() -> None:
    """A box of IoU 0.7 is right at five of the ten thresholds, and the one class missed halves the mean."""
    metric = BoxAP([0, 1])
    metric.update(0, SIZE, *given(boxes([0, 0, 7, 10]), [0]), *truth(boxes(A, B), [0, 1]))
    result = scores_of(metric)
    assert result["box_ap50"] == pytest.approx(1 / 2)
    assert result["box_ap75"] == 0
    assert result["box_ap"] == pytest.approx(5 / 10 / 2)


def test_size_is_the_annotated_area() -> None:
    """Small, medium and large follow the annotated area, not that of the box."""
    metric = BoxAP([0])
    metric.update(0, SIZE, *given(boxes(A), [0]), *truth(boxes(A), [0], areas=[2000.0]))
    assert scores_of(metric)["box_ap_medium"] == pytest.approx(1)
    assert math.isnan(scores_of(metric)["box_ap_small"])


def test_crowd_is_neither_missed_nor_wrong() -> None:
    """A crowd region excuses detections within it and asks for none."""
    region = boxes([0, 0, 20, 20], B)
    for detections in (boxes(B), boxes(B, A)):
        metric = BoxAP([0])
        metric.update(0, SIZE, *given(detections, [0] * len(detections)), *truth(region, [0, 0], crowd=(0,)))
        assert scores_of(metric)["box_ap"] == pytest.approx(1)


def test_empty_in_nan_out() -> None:
    """Images without objects have no AP; missing all is 0; an image without detections counts."""
    for truths, expected in ((truth(boxes(), []), math.nan), (truth(boxes(A), [0]), 0)):
        metric = BoxAP([0])
        metric.update(0, SIZE, *given(boxes(), []), *truths)
        assert scores_of(metric)["box_ap"] == pytest.approx(expected, nan_ok=True)


def test_one_image_has_one_ranking_of_all_classes() -> None:
    """As with masks: a sure detection of a class that is not there lowers the precision of those after it."""
    corners, labels, crowd = boxes(A, B), torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool)
    assert image_box_ap(*given(corners, [0, 1], [0.3, 0.9]), corners, labels, crowd) == pytest.approx(1)
    with_wrong = given(boxes(A, B, A), [0, 1, 7], [0.5, 0.5, 0.9])
    assert image_box_ap(*with_wrong, corners, labels, crowd) == pytest.approx(2 / 3, abs=0.01)
    assert image_box_ap(*given(boxes(), []), corners, labels, crowd) == 0
    assert math.isnan(image_box_ap(*given(corners, [0, 1]), corners, labels, ~crowd))


@pytest.mark.parametrize("split", ["train2017", "val2017"])
@pytest.mark.skipif(not COCO.exists(), reason="needs the COCO sample")
def test_real_annotations_against_themselves_are_one(split: str) -> None:
    """Truth as our reader gives it, crowds left aside as no detection, has a box AP of 1 whatever the size.

    Boxes that are moved have the AP that pycocotools computes from the files alone.
    """
    file = COCO / f"annotations/instances_{split}.json"
    scenes = CocoInstances(COCO / split, file)
    itself, moved, results = BoxAP(range(80)), BoxAP(range(80)), []
    chance = torch.Generator().manual_seed(0)
    for index in range(len(scenes)):
        image = scenes.identified(index)
        one = scenes[index].truth
        truths, kept = (one.boxes(), one.labels, one.crowd, one.areas), ~one.crowd
        corners, scores = one.boxes()[kept], torch.rand(int(kept.sum()), generator=chance)
        itself.update(image.image_id, image.size, scores, one.labels[kept], corners, *truths)
        side = (corners[:, 2:] - corners[:, :2]).repeat(1, 2)
        corners = corners + 0.1 * side * torch.randn(corners.shape, generator=chance)
        moved.update(image.image_id, image.size, scores, one.labels[kept], corners, *truths)
        for score, label, (left, top, right, bottom) in zip(
            scores.tolist(), one.labels[kept].tolist(), corners.tolist(), strict=True
        ):
            category = scenes.categories[label].id
            box = [left, top, right - left, bottom - top]
            results.append({"image_id": image.image_id, "category_id": category, "score": score, "bbox": box})
    assert [*scores_of(itself).values()] == pytest.approx([1] * 6, abs=1e-6)
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = Annotations()
        annotations.dataset = json.loads(file.read_text())
        annotations.createIndex()
        evaluation = COCOeval(annotations, annotations.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 0.3 < evaluation.stats[0] < 0.9
    assert [*scores_of(moved).values()] == pytest.approx(evaluation.stats[:6].tolist(), abs=1e-6)
