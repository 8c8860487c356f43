"""Panoptic quality by the rules of the COCO panoptic benchmark (Kirillov et al., "Panoptic Segmentation", 2019).

Letters: P predicted segments, N annotated segments, K classes, H x W pixels. Maps hold 0 where there is no segment
(void in the truth, unlabelled in a prediction) and n where the n-th segment is.

Each class is counted in four numbers, the columns of every `counts` (K, 4) here: true positives, false positives,
false negatives, and the sum of the true positives' IoU. Counts of images, or of processes, add.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


def panoptic_counts(
    pred_ids: Tensor,  # (H, W) integer, 0..P
    pred_labels: Tensor,  # (P,) class index
    truth_ids: Tensor,  # (H, W) integer, 0..N
    truth_labels: Tensor,  # (N,) class index
    crowd: Tensor,  # (N,) bool, a region of many objects that are not told apart
    num_classes: int,
) -> Tensor:
    """Counts of one image, (K, 4) float64 on the CPU.

    A pair matches if it is of one class and its IoU, void pixels of the truth left out of the union, is above one half.
    Crowd regions neither match nor are missed. An unmatched prediction is no false positive if more than half of it
    lies on void and on crowd regions of its own class. A segment without pixels is no segment.

    Raises ValueError if the maps differ in size or name segments that have no label.
    """
    num_pred, num_truth = len(pred_labels), len(truth_labels)
    if pred_ids.shape != truth_ids.shape:
        raise ValueError(
            f"prediction and truth must be of one size, got {(*pred_ids.shape,)} and {(*truth_ids.shape,)}"
        )
    for name, ids, count in (("prediction", pred_ids, num_pred), ("truth", truth_ids, num_truth)):
        low, high = (int(bound) for bound in ids.aminmax())
        if low < 0 or high > count:
            raise ValueError(f"the {name} has {count} labels, so its map must hold 0..{count}, got {low}..{high}")

    joint = truth_ids.int() * (num_pred + 1) + pred_ids.int()  # 32 bits: several times faster than 64
    overlap = torch.bincount(joint.flatten(), minlength=(num_truth + 1) * (num_pred + 1))
    overlap = overlap.reshape(num_truth + 1, num_pred + 1).cpu()  # what follows is tiny
    pred_labels, truth_labels, crowd = pred_labels.cpu(), truth_labels.cpu(), crowd.cpu()

    truth_area, pred_area = overlap.sum(1)[1:], overlap.sum(0)[1:]
    on_void, inter = overlap[0, 1:], overlap[1:, 1:]  # (P,), (N, P)
    union = truth_area[:, None] + pred_area - inter - on_void
    same_class = truth_labels[:, None] == pred_labels
    match = same_class & ~crowd[:, None] & (2 * inter > union)  # above one half: at most one per row and column
    excused = on_void + (inter * (same_class & crowd[:, None])).sum(0)

    false_positive = ~match.any(0) & (pred_area > 0) & (2 * excused <= pred_area)
    false_negative = ~match.any(1) & (truth_area > 0) & ~crowd
    truth_index, pred_index = match.nonzero(as_tuple=True)
    iou = inter[truth_index, pred_index].double() / union[truth_index, pred_index]

    counts = torch.zeros(num_classes, 4, dtype=torch.float64)
    counts[:, 0].index_add_(0, truth_labels[truth_index], torch.ones_like(iou))
    counts[:, 1].index_add_(0, pred_labels, false_positive.double())
    counts[:, 2].index_add_(0, truth_labels, false_negative.double())
    counts[:, 3].index_add_(0, truth_labels[truth_index], iou)
    return counts


def class_quality(counts: Tensor) -> Tensor:
    """PQ, SQ and RQ of each class, (K, 3) in 0..1 from counts (K, 4); nan where a class was not counted at all.

    All are nan where no class has a segment to find: what is predicted there is neither right nor wrong.
    """
    tp, fp, fn, iou = counts.unbind(1)
    size = tp + (fp + fn) / 2
    # PQ is IoU / size; SQ of a class that never matched is 0, as in the benchmark; 0 / 0 is the nan of absent classes
    quality = torch.stack([iou / size, iou / tp.clamp(min=1), tp / size], 1)
    return quality.where((size[:, None] > 0) & ((tp + fn).sum() > 0), torch.nan)


class PanopticQuality(Metric):
    """PQ, SQ and RQ over many images: the mean over all classes, over things and over stuff.

    `isthing` has one entry per class. Classes that were not counted are left out of the means; a mean over no class is
    nan.
    """

    full_state_update = False
    names = ("pq", "sq", "rq", "pq_things", "sq_things", "rq_things", "pq_stuff", "sq_stuff", "rq_stuff")
    higher_is_better = True
    isthing: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, isthing: Sequence[bool]) -> None:
        super().__init__()
        if len(isthing) != num_classes:
            raise ValueError(f"isthing must have one entry for each of {num_classes} classes, got {len(isthing)}")
        self.register_buffer("isthing", torch.tensor(isthing, dtype=torch.bool), persistent=False)
        # float32 lives on every device (MPS has no float64); sums of IoU over COCO's images stay good to about 1e-6
        self.add_state("counts", torch.zeros(num_classes, 4, dtype=torch.float32), dist_reduce_fx="sum")

    def update(
        self, pred_ids: Tensor, pred_labels: Tensor, truth_ids: Tensor, truth_labels: Tensor, crowd: Tensor
    ) -> None:
        """Count one image; arguments as `panoptic_counts`."""
        counts = panoptic_counts(pred_ids, pred_labels, truth_ids, truth_labels, crowd, len(self.counts))
        self.counts += counts.to(self.counts)

    def compute(self) -> dict[str, Tensor]:
        """Scalars in 0..1 by their `names`: pq, sq, rq, then the same with _things and with _stuff."""
        quality = class_quality(self.counts)
        groups = (quality, quality[self.isthing], quality[~self.isthing])
        return dict(zip(self.names, torch.cat([rows.nanmean(0) for rows in groups]), strict=True))

    def by_class(self) -> dict[int, dict[str, float]]:
        """pq, sq and rq in 0..1 of each class in the means; every process must call it."""
        with self.sync_context():
            quality = class_quality(self.counts)
        return {
            index: dict(zip(("pq", "sq", "rq"), values, strict=True))
            for index, values in enumerate(quality.tolist())
            if not math.isnan(values[0])
        }
