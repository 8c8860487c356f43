"""All scores of one exit from one forward pass: panoptic quality, mask AP and mean IoU.

Letters: H x W the pixels of the original image.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from src.metrics.average_precision import MaskAP
from src.metrics.mean_iou import MeanIoU, semantic_map
from src.metrics.panoptic_quality import PanopticQuality
from src.models.postprocess import Frame, Instances, Panoptic, Postprocess
from src.models.transformer_decoder import Prediction

# Scores of each kind of segmentation; the first one is the quality by which checkpoints and exits are chosen.
SCORES = {"panoptic": ("pq", "ap", "miou"), "instance": ("ap",), "semantic": ("miou",)}


class ImagePrediction(NamedTuple):
    """The prediction of one image; a kind that the task does not predict is None."""

    panoptic: Panoptic | None
    instances: Instances | None
    semantic: Tensor | None  # (H, W) class index
    exit: int | None = None  # number of encoder layers
    gflops: float | None = None  # cost in GMAC
    size: tuple[int, int] | None = None  # (height, width) of the image; the maps may be smaller


class Evaluation(nn.Module):
    """The metrics of one kind of segmentation, updated image by image.

    Args:
        segmentation: panoptic, instance or semantic.
        isthing: of each class.
    """

    def __init__(self, segmentation: str, isthing: list[bool], postprocess: Postprocess):
        super().__init__()
        if segmentation not in SCORES:
            raise ValueError(f"segmentation={segmentation}: expected one of {', '.join(SCORES)}")
        self.segmentation = segmentation
        self.postprocess = postprocess
        things = [index for index, thing in enumerate(isthing) if thing]
        make: dict[str, Callable[[], nn.Module]] = {
            "pq": partial(PanopticQuality, len(isthing), isthing),
            "ap": partial(MaskAP, things),
            "miou": partial(MeanIoU, len(isthing)),
        }
        self.metrics: Any = nn.ModuleDict({name: make[name]() for name in SCORES[segmentation]})

    def take_truth(self, truth: Any) -> None:
        """Score AP against the objects of an annotation file (see `MaskAP`) instead of the data set's own segments."""
        self.metrics["ap"].truth = truth

    @property
    def quality(self) -> str:
        """The name of the main score."""
        return SCORES[self.segmentation][0]

    @property
    def names(self) -> list[str]:
        """The names of all scores, in the order of `compute`."""
        return [name for metric in self.metrics.values() for name in metric.names]

    def answer(self, prediction: Prediction, image: int, frame: Frame) -> ImagePrediction:
        """Return the predictions that are scored, of one image of a batch."""
        post, panoptic, instances, semantic = self.postprocess, None, None, None
        if len(self.metrics) > 1:
            prediction, image, frame = post.enlarged(prediction, image, frame)
        if "pq" in self.metrics:
            panoptic = post.panoptic(prediction, image, frame)
        if "ap" in self.metrics:
            instances = post.instances(prediction, image, frame)
        if "miou" in self.metrics:
            semantic = post.semantic(prediction, image, frame, resize_last=self.segmentation == "semantic")
        return ImagePrediction(panoptic, instances, semantic)

    def update(self, answer: ImagePrediction, truth: Any, image_id: int) -> None:
        """Score one image; `truth` has segments (L, H, W), labels, crowd and areas (N,)."""
        if answer.panoptic is not None:
            ids, labels, _ = answer.panoptic
            self.metrics["pq"].update(ids, labels, truth.segments[0], truth.labels, truth.crowd)
        if answer.instances is not None:
            self.metrics["ap"].update(
                image_id, *answer.instances, truth.masks(), truth.labels, truth.crowd, truth.areas
            )
        if answer.semantic is not None:
            self.metrics["miou"].update(answer.semantic, semantic_map(truth.segments, truth.labels))

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
