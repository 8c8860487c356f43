"""Average precision of instance masks, computed by pycocotools.

Letters: M detections and N annotated segments of one image, H x W pixels.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Container, Sequence
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
    """What is kept of one image; `annotations` makes detections and truths."""

    image_id: int
    height: int
    width: int
    detections: list[dict[str, Any]]
    truths: list[dict[str, Any]]


def encode(masks: Tensor) -> list[RLE]:
    """Masks (M, H, W) bool as M run-length codes."""
    columns = masks.transpose(1, 2).contiguous().view(torch.uint8)  # runs go down the columns
    return coco_mask.encode(columns.cpu().numpy().T)  # (H, W, M) in Fortran's order, without another copy


def annotations(
    labels: Tensor, masks: Tensor | Sequence[RLE], categories: Container[int], **fields: Tensor
) -> list[dict[str, Any]]:
    """Segments of some categories as COCO's annotations, image and annotation ids left out.

    `fields` hold one value for each segment. The area is that of the mask unless they say another.
    """
    keep = [i for i, label in enumerate(labels.tolist()) if label in categories]
    codes = encode(masks[keep]) if isinstance(masks, Tensor) else [masks[i] for i in keep]
    columns = {
        "category_id": labels[keep].tolist(),
        "segmentation": codes,
        "area": [float(coco_mask.area(rle)) for rle in codes],
        **{name: field[keep].tolist() for name, field in fields.items()},
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def index(scored: Sequence[Scored], field: str, categories: Sequence[int]) -> COCO:
    """Images and one kind of their annotations as pycocotools wants them."""
    entries = [(image.image_id, annotation) for image in scored for annotation in getattr(image, field)]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image.image_id, "height": image.height, "width": image.width} for image in scored],
        "categories": [{"id": category} for category in categories],
        # ids from 1, since COCOeval takes a match with 0 for none; no bbox: from results, it would be the area
        "annotations": [
            {"id": number, "image_id": image_id, "iscrowd": 0, **annotation}
            for number, (image_id, annotation) in enumerate(entries, 1)
        ],
    }
    coco.createIndex()
    return coco


def evaluate(scored: Sequence[Scored], categories: Sequence[int], **params: Any) -> COCOeval:
    """The matches of detections and truths by COCO's rules; `params` replace those of pycocotools."""
    evaluation = COCOeval(index(scored, "truths", categories), index(scored, "detections", categories), "segm")
    vars(evaluation.params).update(params)
    evaluation.evaluate()
    return evaluation


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
        """Keep one image. Raises ValueError for run-length codes of another size."""
        height, width = truth_masks.shape[-2:]
        detections = annotations(labels, masks, self.classes, score=scores)
        for detection in detections:  # pycocotools would silently overlap them by -1
            if (size := tuple(detection["segmentation"]["size"])) != (height, width):
                raise ValueError(f"masks of image {image_id} must be of its size {[height, width]}, got {[*size]}")
        if self.truth is not None:
            truths = self.truth.of(int(image_id), (height, width))
        else:
            truths = annotations(truth_labels, truth_masks, self.classes, iscrowd=crowd.int(), area=areas)
        self.scored.append(Scored(int(image_id), height, width, detections, truths))
        self.evaluated = None

    def compute(self) -> dict[str, Tensor]:
        """Scalars in 0..1: ap, ap50, ap75, ap_small, ap_medium, ap_large; nan where no such segment is annotated.

        Raises ValueError if an image was scored twice.
        """
        values = torch.tensor(self._evaluate().stats[:6], dtype=torch.float32, device=self.device)
        return dict(zip(self.names, values.where(values > -1, torch.nan), strict=True))

    def by_class(self) -> dict[int, dict[str, float]]:
        """ap in 0..1 of each annotated class; every process must call it. Raises as `compute` does."""
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
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            evaluation = evaluate(scored, [*self.classes])
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

    def _gather(self) -> list[Scored]:
        """The images of all processes."""
        if not (dist.is_available() and dist.is_initialized()):
            return self.scored
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, self.scored)
        return [image for part in parts for image in part]
