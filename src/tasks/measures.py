"""What a model may answer for an image, and how good an answer is: a table with an entry for each measure.

Letters: H x W the pixels of the original image.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.metrics.average_precision import BoxAP, MaskAP
from src.metrics.image_quality import image_ap, image_box_ap, image_iou, image_pq
from src.metrics.mean_iou import MeanIoU, semantic_map
from src.metrics.panoptic_quality import PanopticQuality, panoptic_counts
from src.models.postprocess import Frame


class Measure(NamedTuple):
    """One form of answer, its score over a data set, and the quality of a single image."""

    field: str  # of `ImagePrediction`, and the method of the post-processing that makes it
    metric: Callable[[Sequence[bool]], Any]  # from which classes are things
    update: Callable[[Any, Any, Any, int], None]  # metric, answer, truth, image id
    quality: Callable[[Any, Any, Sequence[bool]], float]  # of answer, truth, which classes are things: 0..1, or nan
    of_masks: bool = True  # views of an image can be merged, and answers for large images may be smaller
    if_alone: Mapping[str, Any] = {}  # arguments of post-processing where nothing else is answered

    def answer(self, post: Any, prediction: Any, image: int, frame: Frame, alone: bool) -> Any:
        """Return the answer that post-processing makes of an image of a batch."""
        return getattr(post, self.field)(prediction, image, frame, **(self.if_alone if alone else {}))


def things(isthing: Sequence[bool]) -> list[int]:
    """Return the class indices of things."""
    return [index for index, thing in enumerate(isthing) if thing]


def are_things(labels: Tensor, isthing: Sequence[bool]) -> Tensor:
    """Return which labels (N,) are those of things, (N,) bool."""
    return torch.tensor(isthing, device=labels.device)[labels]


def update_pq(metric: Any, answer: Any, truth: Any, image_id: int) -> None:
    metric.update(answer.ids, answer.labels, truth.segments[0], truth.labels, truth.crowd)


def quality_pq(answer: Any, truth: Any, isthing: Sequence[bool]) -> float:
    counts = panoptic_counts(
        answer.ids, answer.labels, truth.segments[0], truth.labels, truth.crowd, num_classes=len(isthing)
    )
    return image_pq(counts)


def update_ap(metric: Any, answer: Any, truth: Any, image_id: int) -> None:
    metric.update(image_id, *answer, truth.masks(), truth.labels, truth.crowd, truth.areas)


def quality_ap(answer: Any, truth: Any, isthing: Sequence[bool]) -> float:
    scores, labels, masks = answer
    kept = are_things(truth.labels, isthing)
    return image_ap(scores, labels, masks, truth.masks()[kept], truth.labels[kept], truth.crowd[kept])


def update_box_ap(metric: Any, answer: Any, truth: Any, image_id: int) -> None:
    size = truth.segments.shape[-2:]
    metric.update(image_id, size, *answer, truth.boxes(), truth.labels, truth.crowd, truth.areas)


def quality_box_ap(answer: Any, truth: Any, isthing: Sequence[bool]) -> float:
    scores, labels, boxes = answer
    kept = are_things(truth.labels, isthing)
    return image_box_ap(scores, labels, boxes, truth.boxes()[kept], truth.labels[kept], truth.crowd[kept])


def update_miou(metric: Any, answer: Tensor, truth: Any, image_id: int) -> None:
    metric.update(answer, semantic_map(truth.segments, truth.labels))


def quality_miou(answer: Tensor, truth: Any, isthing: Sequence[bool]) -> float:
    return image_iou(answer, semantic_map(truth.segments, truth.labels), len(isthing))


MEASURES = {
    "pq": Measure(
        "panoptic",
        lambda isthing: PanopticQuality(len(isthing), isthing),
        update_pq,
        quality_pq,
    ),
    "ap": Measure(
        "instances",
        lambda isthing: MaskAP(things(isthing)),
        update_ap,
        quality_ap,
    ),
    "miou": Measure(
        "semantic",
        lambda isthing: MeanIoU(len(isthing)),
        update_miou,
        quality_miou,
        if_alone={"resize_last": True},
    ),
    "box_ap": Measure(
        "boxes",
        lambda isthing: BoxAP(things(isthing)),
        update_box_ap,
        quality_box_ap,
        of_masks=False,
    ),
}
