"""How good a single image's answer is, in 0..1, where no panoptic quality is asked for.

Letters: M detections and N annotated segments of the image, K classes, H x W pixels, T thresholds.
"""

import contextlib
import io

import numpy as np
import torch
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from src.metrics.average_precision import Scored, encode, index
from src.metrics.mean_iou import VOID

RECALLS = np.linspace(0, 1, 101)  # at which COCO reads precision
MOST = 100  # detections that count


def image_iou(pred: Tensor, truth: Tensor, num_classes: int) -> float:
    """Mean IoU of one image (H, W) over the classes in its prediction or truth, void left out; nan without any."""
    seen = truth != VOID
    pred, truth = pred[seen], truth[seen]
    inter, in_pred, in_truth = (
        torch.bincount(pixels, minlength=num_classes).double() for pixels in (truth[pred == truth], pred, truth)
    )  # (K,) each
    return float((inter / (in_pred + in_truth - inter)).nanmean())


def image_ap(
    scores: Tensor,  # (M,)
    labels: Tensor,  # (M,) class index
    masks: Tensor,  # (M, H, W) bool
    truth_masks: Tensor,  # (N, H, W) bool
    truth_labels: Tensor,  # (N,) class index
    crowd: Tensor,  # (N,) bool
) -> float:
    """AP of one image with the detections of all classes in one ranking, over IoU 0.50 to 0.95; nan without truth.

    Matching is COCO's, class by class. One ranking, not a mean over classes: a detection of a class that the image
    does not have lowers the precision of all that are less sure, where COCO's mean would not see it.
    """
    if not bool((~crowd).any()):
        return float("nan")
    if not len(labels):
        return 0.0
    detections = [
        {"category_id": label, "score": score, "segmentation": rle, "area": 1.0}
        for label, score, rle in zip(labels.tolist(), scores.tolist(), encode(masks), strict=True)
    ]
    truths = [
        {"category_id": label, "iscrowd": int(many), "segmentation": rle, "area": 1.0}
        for label, many, rle in zip(truth_labels.tolist(), crowd.tolist(), encode(truth_masks), strict=True)
    ]
    height, width = masks.shape[-2:]
    image = Scored(0, height, width, detections, truths)
    categories = sorted({one["category_id"] for one in [*truths, *detections]})
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools talks
        evaluation = COCOeval(index([image], "truths", categories), index([image], "detections", categories), "segm")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [MOST]
        evaluation.evaluate()
    classes = [one for one in evaluation.evalImgs if one is not None]
    order = np.argsort([-score for one in classes for score in one["dtScores"]], kind="stable")[:MOST]
    matched, ignored = (
        np.concatenate([one[key] for one in classes], 1)[:, order].astype(bool) for key in ("dtMatches", "dtIgnore")
    )  # (T, M)
    hits, misses = np.cumsum(matched & ~ignored, 1), np.cumsum(~matched & ~ignored, 1)
    recall = hits / int((~crowd).sum())
    precision = hits / np.maximum(hits + misses, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]  # the best at this recall or a higher one
    return float(np.mean([read_off(p, r) for p, r in zip(precision, recall, strict=True)]))


def read_off(precision: np.ndarray, recall: np.ndarray) -> float:
    """The mean precision (M,) at COCO's recalls, zero where they are not reached."""
    places = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(precision, 0.0)[places].mean())
