"""Average precision of instance masks, computed by pycocotools.

Letters: M detections and N annotated segments of one image, H x W pixels.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchmetrics import Metric

RLE = dict[str, Any]  # {"size": [H, W], "counts": bytes}, as pycocotools writes it


class Scored(NamedTuple):
    """What is kept of one image: its annotations in COCO's form, image and annotation ids left out."""

    image_id: int
    height: int
    width: int
    detections: list[dict[str, Any]]
    truths: list[dict[str, Any]]


def encode(masks: Tensor) -> list[RLE]:
    """Masks (M, H, W) bool as M run-length codes."""
    columns = masks.to(torch.uint8).transpose(1, 2).contiguous()  # runs go down the columns
    return coco_mask.encode(columns.cpu().numpy().T)  # (H, W, M) in Fortran's order, without another copy


def index(scored: Sequence[Scored], field: str, categories: Sequence[int]) -> COCO:
    """Images and one kind of their annotations as pycocotools wants them."""
    annotations = [(image.image_id, annotation) for image in scored for annotation in getattr(image, field)]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image.image_id, "height": image.height, "width": image.width} for image in scored],
        "categories": [{"id": category} for category in categories],
        # ids from 1, since COCOeval takes a match with 0 for none; no bbox: from results, it would be the area
        "annotations": [
            {"id": number, "image_id": image_id, "iscrowd": 0, **annotation}
            for number, (image_id, annotation) in enumerate(annotations, 1)
        ],
    }
    coco.createIndex()
    return coco


class MaskAP(Metric):
    """COCO's average precision of masks: the mean over the classes in `class_indices`, 100 detections an image.

    Annotated segments of other classes, and detections of them, are left out. With `truth`, which gives the objects of
    an image by its id and size (see src/data/instance_truth.py), these are scored against instead of those of `update`.
    """

    full_state_update = False
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    higher_is_better = True

    def __init__(self, class_indices: Sequence[int]) -> None:
        super().__init__()
        self.classes = dict.fromkeys(class_indices)  # in order, and quick to look up
        self.truth: Any = None
        self.scored: list[Scored] = []  # not a state of torchmetrics, which gathers tensors only
        self.evaluated: COCOeval | None = None  # those images, as long as no other comes

    def update(
        self,
        image_id: int,
        scores: Tensor,  # (M,)
        labels: Tensor,  # (M,) class index
        masks: Tensor | Sequence[RLE],  # (M, H, W) bool
        truth_masks: Tensor,  # (N, H, W) bool
        truth_labels: Tensor,  # (N,) class index
        crowd: Tensor,  # (N,) bool
        areas: Tensor,  # (N,) pixels, as annotated: they tell small from medium and large
    ) -> None:
        """Keep one image, as run-length codes."""
        detections = [
            {"category_id": category, "score": score, "segmentation": rle, "area": float(coco_mask.area(rle))}
            for category, rle, score in self._considered(labels, masks, scores)
        ]
        height, width = truth_masks.shape[-2:]
        for detection in detections:  # pycocotools would silently overlap them by -1
            if tuple(detection["segmentation"]["size"]) != (height, width):
                found = detection["segmentation"]["size"]
                raise ValueError(f"masks of image {image_id} must be of its size {[height, width]}, got {found}")
        truths = self._truths(int(image_id), truth_labels, truth_masks, crowd, areas)
        self.scored.append(Scored(int(image_id), height, width, detections, truths))
        self.evaluated = None

    def _truths(
        self, image_id: int, labels: Tensor, masks: Tensor, crowd: Tensor, areas: Tensor
    ) -> list[dict[str, Any]]:
        """The objects that an image is scored against."""
        if self.truth is not None:
            return self.truth.of(image_id, tuple(masks.shape[-2:]))
        return [
            {"category_id": category, "iscrowd": int(is_crowd), "segmentation": rle, "area": area}
            for category, rle, is_crowd, area in self._considered(labels, masks, crowd, areas)
        ]

    def compute(self) -> dict[str, Tensor]:
        """Scalars in 0..1: ap, ap50, ap75, ap_small, ap_medium, ap_large; nan where no such segment is annotated.

        Raises ValueError if an image was scored twice.
        """
        values = torch.tensor(self._evaluate().stats[:6], dtype=torch.float32, device=self.device)
        return dict(zip(self.names, values.where(values > -1, torch.nan), strict=True))

    def by_class(self) -> dict[int, dict[str, float]]:
        """ap in 0..1 of each class that the mean is of, those annotated; to be asked by every process, as `compute` is.

        Raises as `compute` does.
        """
        evaluation = self._evaluate()
        means = evaluation.eval["precision"][..., 0, -1].mean((0, 1))  # of all sizes, 100 detections; -1 if absent
        by_category = dict(zip(evaluation.params.catIds, means.tolist(), strict=True))  # which it has sorted
        return {index: {"ap": by_category[index]} for index in self.classes if by_category[index] > -1}

    def _evaluate(self) -> COCOeval:
        """pycocotools' evaluation of all processes' images."""
        if self.evaluated is not None:
            return self.evaluated
        scored = self._gather()
        repeated = [image_id for image_id, count in Counter(image.image_id for image in scored).items() if count > 1]
        if repeated:
            raise ValueError(f"every image must be scored once, got these twice or more: {repeated[:10]}")
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools talks
            truth, found = (index(scored, field, [*self.classes]) for field in ("truths", "detections"))
            evaluation = COCOeval(truth, found, "segm")
            evaluation.params.imgIds = [image.image_id for image in scored]
            evaluation.params.catIds = [*self.classes]
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        self.evaluated = evaluation
        return evaluation

    def reset(self) -> None:
        """Forget every image."""
        super().reset()
        self.scored, self.evaluated = [], None

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """The same as `update`: one image has no average precision of its own."""
        self.update(*args, **kwargs)

    def _considered(self, labels: Tensor, masks: Tensor | Sequence[RLE], *others: Tensor) -> Iterator[tuple[Any, ...]]:
        """(class index, run-length code, others...) of each segment whose class counts."""
        keep = [i for i, label in enumerate(labels.tolist()) if label in self.classes]
        codes = encode(masks[keep]) if isinstance(masks, Tensor) else [masks[i] for i in keep]
        return zip(labels[keep].tolist(), codes, *(other[keep].tolist() for other in others), strict=True)

    def _gather(self) -> list[Scored]:
        """The images of all processes."""
        if not (dist.is_available() and dist.is_initialized()):
            return self.scored
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, self.scored)
        return [image for part in parts for image in part]
