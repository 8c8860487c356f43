"""Average precision of instance masks and of boxes, computed by pycocotools.

Letters: M detections and N annotated objects of one image, H x W pixels.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Any, ClassVar, NamedTuple

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


class Shape(NamedTuple):
    """What detections and truths are compared by."""

    kind: str  # as pycocotools calls it
    columns: Callable[[Any], dict[str, list[Any]]]  # of M masks or boxes: fields of their annotations, area among them


def of_masks(masks: Tensor | Sequence[RLE]) -> dict[str, list[Any]]:
    """Run-length codes and areas of masks (M, H, W) bool, or of codes."""
    codes = encode(masks) if isinstance(masks, Tensor) else [*masks]
    return {"segmentation": codes, "area": [float(coco_mask.area(rle)) for rle in codes]}


def of_boxes(boxes: Tensor) -> dict[str, list[Any]]:
    """COCO's form of boxes (M, 4) left, top, right, bottom: left, top, width, height; and their areas."""
    size = boxes[:, 2:] - boxes[:, :2]
    return {"bbox": torch.cat([boxes[:, :2], size], 1).tolist(), "area": size.prod(1).tolist()}


MASK, BOX = Shape("segm", of_masks), Shape("bbox", of_boxes)


def annotations(
    shape: Shape, labels: Tensor, regions: Any, categories: Container[int], **fields: Tensor
) -> list[dict[str, Any]]:
    """Objects of some categories as COCO's annotations, image and annotation ids left out.

    `regions` are masks (M, H, W), codes of masks or boxes (M, 4), as `shape` takes them. `fields` hold one value for
    each object. The area is that of the region unless they say another.
    """
    keep = [i for i, label in enumerate(labels.tolist()) if label in categories]
    columns = {
        "category_id": labels[keep].tolist(),
        **shape.columns(regions[keep] if isinstance(regions, Tensor) else [regions[i] for i in keep]),
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


def evaluate(shape: Shape, scored: Sequence[Scored], categories: Sequence[int], **params: Any) -> COCOeval:
    """The matches of detections and truths by COCO's rules; `params` replace those of pycocotools."""
    evaluation = COCOeval(index(scored, "truths", categories), index(scored, "detections", categories), shape.kind)
    vars(evaluation.params).update(params)
    evaluation.evaluate()
    return evaluation


class AveragePrecision(Metric):
    """COCO's average precision: the mean over the classes in `class_indices`, 100 detections an image.

    Annotated objects of other classes, and detections of them, are left out. With `truth`, which gives the objects of
    an image by its id and size (see src/data/instance_truth.py), these are scored against instead of those of `update`.
    """

    full_state_update = False
    higher_is_better = True
    shape: ClassVar[Shape]
    names: ClassVar[tuple[str, ...]]  # of the values: AP, at IoU 0.5, at 0.75, of small, medium and large objects

    def __init__(self, class_indices: Sequence[int]) -> None:
        super().__init__()
        self.classes = dict.fromkeys(class_indices)  # in order, and quick to look up
        self.truth: Any = None
        self.scored: list[Scored] = []  # not a state of torchmetrics, which gathers tensors only
        self.evaluated: COCOeval | None = None  # those images, as long as no other comes

    def keep(
        self,
        image_id: int,
        size: Sequence[int],  # height, width
        scores: Tensor,  # (M,)
        labels: Tensor,  # (M,) class index
        regions: Any,  # M masks or boxes
        truth_regions: Tensor,  # N masks or boxes
        truth_labels: Tensor,  # (N,) class index
        crowd: Tensor,  # (N,) bool
        areas: Tensor,  # (N,) pixels, as annotated: they tell small from medium and large
    ) -> None:
        """Keep one image as pycocotools wants it."""
        height, width = size
        detections = annotations(self.shape, labels, regions, self.classes, score=scores)
        if self.truth is not None:
            truths = self.truth.of(int(image_id), (height, width))
        else:
            fields = {"iscrowd": crowd.int(), "area": areas}
            truths = annotations(self.shape, truth_labels, truth_regions, self.classes, **fields)
        self.scored.append(Scored(int(image_id), height, width, detections, truths))
        self.evaluated = None

    def compute(self) -> dict[str, Tensor]:
        """Scalars in 0..1, by `names`; nan where no such object is annotated.

        Raises ValueError if an image was scored twice.
        """
        values = torch.tensor(self._evaluate().stats[:6], dtype=torch.float32, device=self.device)
        return dict(zip(self.names, values.where(values > -1, torch.nan), strict=True))

    def by_class(self) -> dict[int, dict[str, float]]:
        """AP in 0..1 of each annotated class; every process must call it. Raises as `compute` does."""
        evaluation = self._evaluate()
        means = evaluation.eval["precision"][..., 0, -1].mean((0, 1))  # of all sizes, 100 detections; -1 if absent
        by_category = dict(zip(evaluation.params.catIds, means.tolist(), strict=True))  # which it has sorted
        return {index: {self.names[0]: by_category[index]} for index in self.classes if by_category[index] > -1}

    def _evaluate(self) -> COCOeval:
        """pycocotools' evaluation of all processes' images."""
        if self.evaluated is not None:
            return self.evaluated
        scored = self._gather()
        repeated = [image_id for image_id, count in Counter(image.image_id for image in scored).items() if count > 1]
        if repeated:
            raise ValueError(f"every image must be scored once, got these twice or more: {repeated[:10]}")
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            evaluation = evaluate(self.shape, scored, [*self.classes])
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


class MaskAP(AveragePrecision):
    """Average precision of instance masks: ap, ap50, ap75, ap_small, ap_medium, ap_large."""

    shape = MASK
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")

    def update(
        self,
        image_id: int,
        scores: Tensor,  # (M,)
        labels: Tensor,  # (M,) class index
        masks: Tensor | Sequence[RLE],  # (M, H, W) bool
        truth_masks: Tensor,  # (N, H, W) bool
        truth_labels: Tensor,  # (N,) class index
        crowd: Tensor,  # (N,) bool
        areas: Tensor,  # (N,) pixels, as annotated
    ) -> None:
        """Keep one image. Raises ValueError for run-length codes of another size."""
        size = truth_masks.shape[-2:]
        self.keep(image_id, size, scores, labels, masks, truth_masks, truth_labels, crowd, areas)
        for detection in self.scored[-1].detections:  # pycocotools would silently overlap them by -1
            if (other := detection["segmentation"]["size"]) != [*size]:
                raise ValueError(f"masks of image {image_id} must be of its size {[*size]}, got {[*other]}")


class BoxAP(AveragePrecision):
    """Average precision of boxes: box_ap, box_ap50, box_ap75, box_ap_small, box_ap_medium, box_ap_large.

    Sizes are those of annotated areas, which COCO measures in masks.
    """

    shape = BOX
    names = tuple(f"box_{name}" for name in MaskAP.names)

    def update(
        self,
        image_id: int,
        size: Sequence[int],  # height, width of the image
        scores: Tensor,  # (M,)
        labels: Tensor,  # (M,) class index
        boxes: Tensor,  # (M, 4) left, top, right, bottom in pixels
        truth_boxes: Tensor,  # (N, 4)
        truth_labels: Tensor,  # (N,) class index
        crowd: Tensor,  # (N,) bool
        areas: Tensor,  # (N,) pixels, as annotated
    ) -> None:
        """Keep one image."""
        self.keep(image_id, size, scores, labels, boxes, truth_boxes, truth_labels, crowd, areas)
