"""Predicted boxes as detections of the original image."""

import pytest
import torch

from src.models.box_postprocess import BoxPostprocess
from src.models.box_prediction import BoxPrediction
from src.models.postprocess import Frame

FRAME = Frame((96, 128), (60, 90), (120, 180))  # the image lies in a larger batch, and was twice as large


def prediction(columns: int, queries: int = 9) -> BoxPrediction:
    chance = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, queries, columns, generator=chance)
    size = 0.1 + 0.3 * torch.rand(2, queries, 2, generator=chance)
    return BoxPrediction(logits, torch.cat([torch.rand(2, queries, 2, generator=chance), size], -1))


def test_a_query_has_its_most_likely_class() -> None:
    """With "no object", every query is one detection of the class that is likeliest beside it, surest first."""
    given = prediction(4)
    found = BoxPostprocess([True] * 3).boxes(given, 1, FRAME)
    scores, labels = given.class_logits[1].softmax(-1)[:, :-1].max(-1)
    order = scores.argsort(descending=True)
    torch.testing.assert_close(found.scores, scores[order])
    assert torch.equal(found.labels, labels[order])
    assert (found.labels < 3).all()


def test_a_query_may_have_several_classes() -> None:
    """Without "no object", the best pairs of query and class are detections, as many as asked for."""
    given = prediction(3)
    found = BoxPostprocess([True] * 3, num_detections=20).boxes(given, 0, FRAME)
    pairs = sorted(
        ((score, query, label) for query, row in enumerate(given.class_logits[0].sigmoid().tolist())
         for label, score in enumerate(row)), reverse=True
    )[:20]  # fmt: skip
    assert found.scores.tolist() == pytest.approx([score for score, _, _ in pairs])
    assert found.labels.tolist() == [label for _, _, label in pairs]
    assert len({query for _, query, _ in pairs}) < 20


def test_boxes_are_pixels_of_the_original_image() -> None:
    """The whole image is its whole original size, however it lies in the batch; what passes the edge is cut off."""
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.25, 0.5, 0.1, 0.2], [0.95, 0.0, 0.2, 0.4]])
    logits = torch.tensor([[9.0, 0.0], [8.0, 0.0], [7.0, 0.0]])
    found = BoxPostprocess([True]).boxes(BoxPrediction(logits[None], boxes[None]), 0, FRAME)
    expected = torch.tensor([[0.0, 0, 180, 120], [36, 48, 54, 72], [153, 0, 180, 24]])
    torch.testing.assert_close(found.boxes, expected)


@pytest.mark.parametrize("columns", [4, 3], ids=["softmax", "sigmoid"])
def test_stuff_is_never_detected(columns: int) -> None:
    """Whatever its score; with softmax a query then has its best thing."""
    found = BoxPostprocess([True, False, True]).boxes(prediction(columns), 0, FRAME)
    assert len(found.scores) == (9 if columns == 4 else 18)
    assert {*found.labels.tolist()} == {0, 2}


@pytest.mark.parametrize("columns", [4, 3], ids=["softmax", "sigmoid"])
def test_fewer_detections_are_the_best_ones(columns: int) -> None:
    """The first of many."""
    few, many = (BoxPostprocess([True] * 3, number).boxes(prediction(columns), 0, FRAME) for number in (4, 100))
    for one, other in zip(few, many, strict=True):
        assert torch.equal(one, other[:4])


def test_another_number_of_classes_is_refused() -> None:
    """In one line with both numbers."""
    with pytest.raises(ValueError, match="predictions have 7 columns for 3 classes, expected 3, or one more"):
        BoxPostprocess([True] * 3).boxes(prediction(7), 0, FRAME)


def test_half_precision_is_scored_in_float32() -> None:
    """So that scores near one differ."""
    given = BoxPrediction(*(part.bfloat16() for part in prediction(4)[:2]))
    found = BoxPostprocess([True] * 3).boxes(given, 0, FRAME)
    assert found.scores.dtype == found.boxes.dtype == torch.float32
