"""Scores by class beside their means, for every kind of segmentation."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from src.data.shapes import Shapes
from src.data.targets import Category, Truth
from src.metrics.mean_iou import VOID, semantic_map
from src.models import postprocess
from src.models.box_postprocess import Boxes, BoxPostprocess
from src.models.postprocess import Frame, Instances, Panoptic, Postprocess
from src.models.transformer_decoder import Prediction
from src.tasks.base import class_names
from src.tasks.evaluation import SCORES, Evaluation

MEANS = {"pq": "pq", "sq": "sq", "rq": "rq", "ap": "ap", "miou": "iou", "box_ap": "box_ap"}


class Beside:
    """Answers that are the truth of a scene, moved a few pixels."""

    def __init__(self, by: int):
        self.by = by

    def enlarged(self, *place: Any) -> Any:
        return place

    def panoptic(self, truth: Truth, *others: Any) -> Panoptic:
        return Panoptic(truth.segments[0].roll(self.by, 1), truth.labels, torch.ones(len(truth.labels)))

    def instances(self, truth: Truth, *others: Any) -> Instances:
        return Instances(torch.linspace(0.6, 0.9, len(truth.labels)), truth.labels, truth.masks().roll(self.by, 2))

    def boxes(self, truth: Truth, *others: Any) -> Boxes:
        return Boxes(torch.linspace(0.6, 0.9, len(truth.labels)), truth.labels, truth.boxes() + self.by)

    def semantic(self, truth: Truth, *others: Any, resize_last: bool = False) -> torch.Tensor:
        classes = semantic_map(truth.segments, truth.labels)
        return classes.where(classes != VOID, 0).roll(self.by, 1)


@pytest.mark.parametrize("segmentation", SCORES)
def test_every_score_is_the_mean_over_classes(segmentation: str) -> None:
    """In percent, of those classes that have one; forgotten with the images."""
    scenes = Shapes(6, size=64, seed=3)
    isthing = [category.isthing for category in scenes.categories]
    evaluation = Evaluation(segmentation, isthing, Beside(3))  # type: ignore[arg-type]
    for place in range(len(scenes)):
        truth = scenes[place].truth
        answer = evaluation.answer(truth, 0, SimpleNamespace())  # type: ignore[arg-type]
        evaluation.update(answer, truth, place)
    means, by_class = evaluation.compute(), evaluation.by_class()
    for mean in MEANS.keys() & means.keys():
        scores = [one[MEANS[mean]] for one in by_class.values() if MEANS[mean] in one]
        assert len(set(scores)) > 1
        assert 0 < sum(scores) / len(scores) == pytest.approx(means[mean], abs=1e-4)
    assert evaluation.quality in means
    evaluation.reset()
    assert evaluation.by_class() == {}


@pytest.mark.parametrize("segmentation", SCORES)
def test_the_truth_is_of_full_quality(segmentation: str) -> None:
    """The quality of a single image is 1 for its truth, less for one beside it, and nan without annotations."""
    scene = Shapes(1, size=64, seed=3, void=0.0, crowd=0.0)[0]
    isthing = [category.isthing for category in Shapes(1).categories]
    empty = scene.truth.select(torch.zeros(len(scene.truth.labels), dtype=torch.bool))

    def quality(by: int, truth: Truth) -> float:
        evaluation = Evaluation(segmentation, isthing, Beside(by))  # type: ignore[arg-type]
        return evaluation.quality_of(truth, 0, SimpleNamespace(), truth)  # type: ignore[arg-type]

    assert quality(0, scene.truth) == pytest.approx(1)
    assert 0 <= quality(5, scene.truth) < 1
    assert quality(0, empty) != quality(0, empty)


def test_post_processing_must_give_the_answers() -> None:
    """What masks are made of gives no boxes, and the reverse; the message names models that do."""
    for segmentation, post in (("boxes", Postprocess([True])), ("panoptic", BoxPostprocess([True]))):
        with pytest.raises(ValueError, match=rf"segmentation={segmentation}: \w+ gives no .*model=detr"):
            Evaluation(segmentation, [True], post)


def test_kinds_scored_together_are_those_scored_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pixel changes where masks are resized once for all kinds, nor where they are too large for that."""
    torch.manual_seed(0)
    prediction = Prediction(5 * torch.randn(2, 40, 5), 3 * torch.randn(2, 40, 8, 8))
    frame, isthing = Frame((32, 32), (32, 24), (21, 17)), [True, False, True, True]
    post = Postprocess(isthing, overlap_threshold=0.1)
    alone = [make(prediction, 1, frame) for make in (post.panoptic, post.instances, post.semantic)]
    for held in (postprocess.HELD, 1):
        monkeypatch.setattr(postprocess, "HELD", held)
        panoptic, instances, semantic, *_ = Evaluation("panoptic", isthing, post).answer(prediction, 1, frame)
        together = [panoptic, instances, semantic]
        torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)  # of scores; ids and masks are equal
    assert len(alone[0].labels) > 1


def test_classes_that_share_a_name_are_told_apart() -> None:
    """By their ids."""
    classes = [Category(7, "a", True, (0, 0, 0)), Category(8, "b", True, (0, 0, 0)), Category(9, "a", False, (0, 0, 0))]
    assert class_names(classes) == ["a (7)", "b", "a (9)"]
