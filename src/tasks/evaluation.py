"""All scores of one exit from one forward pass, as the kind of segmentation has it.

Letters: H x W the pixels of the original image.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from src.metrics.average_precision import AveragePrecision
from src.models.box_postprocess import Boxes
from src.models.postprocess import Frame, Instances, Panoptic
from src.tasks.measures import MEASURES

# Scores of each kind of segmentation; the first one is the quality by which checkpoints and exits are chosen.
SCORES = {"panoptic": ("pq", "ap", "miou"), "instance": ("ap",), "semantic": ("miou",), "boxes": ("box_ap",)}


class ImagePrediction(NamedTuple):
    """The prediction of one image; a kind that the task does not predict is None."""

    panoptic: Panoptic | None = None
    instances: Instances | None = None
    semantic: Tensor | None = None  # (H, W) class index
    exit: int | None = None  # number of encoder layers
    gflops: float | None = None  # cost in GMAC
    ms: float | None = None  # what the measured times say for this cost; known with `budget_ms`
    size: tuple[int, int] | None = None  # (height, width) of the image; the maps may be smaller
    boxes: Boxes | None = None  # in pixels of the image


def check_answers(segmentation: str, postprocess: Any) -> None:
    """Raise ValueError for an unknown kind of segmentation, and for post-processing that gives other answers."""
    if segmentation not in SCORES:
        raise ValueError(f"segmentation={segmentation}: expected one of {', '.join(SCORES)}")
    if missing := [field for name in SCORES[segmentation] if not hasattr(postprocess, field := MEASURES[name].field)]:
        raise ValueError(
            f"segmentation={segmentation}: {type(postprocess).__name__} gives no {missing[0]}; expected boxes with a "
            "detector (model=detr, deformable_detr or dino), and panoptic, instance or semantic with model=mask2former"
        )


class Evaluation(nn.Module):
    """The metrics of one kind of segmentation, updated image by image.

    Args:
        segmentation: one of `SCORES`.
        isthing: of each class.
        postprocess: has a method for each answer of that kind (`Measure.field`).
    """

    def __init__(self, segmentation: str, isthing: Sequence[bool], postprocess: Any):
        super().__init__()
        check_answers(segmentation, postprocess)
        self.postprocess, self.isthing = postprocess, list(isthing)
        self.measures = {name: MEASURES[name] for name in SCORES[segmentation]}
        self.metrics: Any = nn.ModuleDict({name: one.metric(self.isthing) for name, one in self.measures.items()})

    def take_truth(self, truth: Any) -> None:
        """Score AP against the objects of an annotation file (see `MaskAP`) instead of the data set's own segments."""
        for metric in self.metrics.values():
            if isinstance(metric, AveragePrecision):
                metric.truth = truth

    @property
    def quality(self) -> str:
        """The name of the main score."""
        return next(iter(self.measures))

    @property
    def of_masks(self) -> bool:
        """Whether answers are maps or masks (`Measure.of_masks`)."""
        return all(one.of_masks for one in self.measures.values())

    @property
    def predicts(self) -> list[str]:
        """The fields of `ImagePrediction` that are answered."""
        return [one.field for one in self.measures.values()]

    @property
    def names(self) -> list[str]:
        """The names of all scores, in the order of `compute`."""
        return [name for metric in self.metrics.values() for name in metric.names]

    def answer(self, prediction: Any, image: int, frame: Frame) -> ImagePrediction:
        """Return the predictions that are scored, of one image of a batch."""
        alone = len(self.measures) == 1
        if not alone:
            prediction, image, frame = self.postprocess.enlarged(prediction, image, frame)
        made = {
            one.field: one.answer(self.postprocess, prediction, image, frame, alone) for one in self.measures.values()
        }
        return ImagePrediction(**made)

    def update(self, answer: ImagePrediction, truth: Any, image_id: int) -> None:
        """Score one image; `truth` has segments (L, H, W), labels, crowd and areas (N,)."""
        for name, one in self.measures.items():
            one.update(self.metrics[name], getattr(answer, one.field), truth, image_id)

    def quality_of(self, prediction: Any, image: int, frame: Frame, truth: Any) -> float:
        """Return the main score of one image of a batch by itself, 0..1; nan if there is nothing to score."""
        main = self.measures[self.quality]
        return main.quality(main.answer(self.postprocess, prediction, image, frame, True), truth, self.isthing)

    def compute(self) -> dict[str, float]:
        """Return all scores in percent, over all processes."""
        return {
            name: 100 * float(value) for metric in self.metrics.values() for name, value in metric.compute().items()
        }

    def by_class(self) -> dict[int, dict[str, float]]:
        """Return the scores of each class in percent, by class index and name; a score is the mean of its classes."""
        found: dict[int, dict[str, float]] = {}
        for metric in self.metrics.values():
            for index, scores in metric.by_class().items():
                found.setdefault(index, {}).update({name: 100 * value for name, value in scores.items()})
        return dict(sorted(found.items()))

    def reset(self) -> None:
        """Start anew, without any image."""
        for metric in self.metrics.values():
            metric.reset()
