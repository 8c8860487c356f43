"""Scores by class beside their means, for every kind of segmentation."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from src.data.shapes import Shapes
from src.data.targets import Category, Truth
from src.metrics.mean_iou import VOID, semantic_map
from src.models.postprocess import Instances, Panoptic
from src.tasks.base import class_names
from src.tasks.evaluation import SCORES, Evaluation

MEANS = {"pq": "pq", "sq": "sq", "rq": "rq", "ap": "ap", "miou": "iou"}


class Beside:
    """Answers that are the truth of a scene, moved a few pixels."""

    def __init__(self, by: int):
        self.by = by

    def panoptic(self, truth: Truth, *others: Any) -> Panoptic:
        return Panoptic(truth.segments[0].roll(self.by, 1), truth.labels, torch.ones(len(truth.labels)))

    def instances(self, truth: Truth, *others: Any) -> Instances:
        return Instances(torch.linspace(0.6, 0.9, len(truth.labels)), truth.labels, truth.masks().roll(self.by, 2))

    def semantic(self, truth: Truth, *others: Any, resize_last: bool) -> torch.Tensor:
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


def test_classes_that_share_a_name_are_told_apart() -> None:
    """By their ids."""
    classes = [Category(7, "a", True, (0, 0, 0)), Category(8, "b", True, (0, 0, 0)), Category(9, "a", False, (0, 0, 0))]
    assert class_names(classes) == ["a (7)", "b", "a (9)"]
