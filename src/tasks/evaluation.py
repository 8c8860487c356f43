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

# What is scored for each kind of segmentation; the first score is the quality that checkpoints and exits are chosen by.
SCORES = {"panoptic": ("pq", "ap", "miou"), "instance": ("ap",), "semantic": ("miou",)}


class ImagePrediction(NamedTuple):
    """What the model makes of one image; what was not asked for is None."""

    panoptic: Panoptic | None
    instances: Instances | None
    semantic: Tensor | None  # (H, W) class index
    exit: int | None = None  # encoder layers that made it
    gflops: float | None = None  # GMAC that it took
    size: tuple[int, int] | None = None  # (height, width) of the photo, whose maps may be made smaller


class Evaluation(nn.Module):
    """The metrics that a kind of segmentation is scored by, fed image by image.

    Args:
        segmentation: panoptic, instance or semantic.
        isthing: of each class.
    """

    def __init__(
        self,
        segmentation: str,
        isthing: list[bool],
        postprocess: Postprocess,
    ):
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
        """Score AP against objects from elsewhere (see `MaskAP`), not the data set's own segments."""
        self.metrics["ap"].truth = truth

    @property
    def quality(self) -> str:
        """The score that counts."""
        return SCORES[self.segmentation][0]

    @property
    def names(self) -> list[str]:
        """Of all scores, in the order of `compute`."""
        return [name for metric in self.metrics.values() for name in metric.names]

    def answer(self, prediction: Prediction, image: int, frame: Frame) -> ImagePrediction:
        """What is scored of one image of a batch."""
        post, panoptic, instances, semantic = self.postprocess, None, None, None
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
        """All scores in percent, those of all processes together."""
        return {
            name: 100 * float(value) for metric in self.metrics.values() for name, value in metric.compute().items()
        }

    def by_class(self) -> dict[int, dict[str, float]]:
        """Scores in percent of each class that they are the mean of, by class index and score."""
        found: dict[int, dict[str, float]] = {}
        for metric in self.metrics.values():
            for index, scores in metric.by_class().items():
                found.setdefault(index, {}).update({name: 100 * value for name, value in scores.items()})
        return dict(sorted(found.items()))

    def reset(self) -> None:
        """Forget all images."""
        for metric in self.metrics.values():
            metric.reset()
