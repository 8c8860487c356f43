"""Quality of the prediction for a single image, in 0..1: PQ, mean IoU or AP of masks or boxes.

Letters: M detections and N annotated segments of the image, K classes, H x W pixels, T thresholds.
"""

import contextlib
import io

import numpy as np
import torch
from torch import Tensor

from src.metrics.average_precision import BOX, MASK, Scored, Shape, annotations, evaluate
from src.metrics.mean_iou import VOID
from src.metrics.panoptic_quality import class_quality

RECALLS = np.linspace(0, 1, 101)  # at which COCO reads precision
MAX_DETECTIONS = 100  # per image, as in COCO


def image_pq(counts: Tensor) -> float:
    """Return PQ of one image from its counts (K, 4): the mean over the classes counted in it.

    nan if the image has no segments, or only crowd regions.
    """
    return float(class_quality(counts)[:, 0].nanmean())


def image_iou(pred: Tensor, truth: Tensor, num_classes: int) -> float:
    """Return mean IoU of one image (H, W) over the classes in prediction or truth, without void; nan if none."""
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
    """Return AP of the masks of one image over IoU 0.50 to 0.95; nan without annotated segments.

    Detections of all classes share one ranking. A detection of a class that the image does not have therefore lowers
    the precision of all detections with lower scores; COCO's mean over classes would not count it.
    """
    return ranked_ap(MASK, scores, labels, masks, truth_masks, truth_labels, crowd)


def image_box_ap(
    scores: Tensor,  # (M,)
    labels: Tensor,  # (M,) class index
    boxes: Tensor,  # (M, 4) left, top, right, bottom in pixels
    truth_boxes: Tensor,  # (N, 4)
    truth_labels: Tensor,  # (N,) class index
    crowd: Tensor,  # (N,) bool
) -> float:
    """Return AP of the boxes of one image, as `image_ap` of its masks; nan without annotated boxes."""
    return ranked_ap(BOX, scores, labels, boxes, truth_boxes, truth_labels, crowd)


def ranked_ap(
    shape: Shape, scores: Tensor, labels: Tensor, regions: Tensor, truths: Tensor, truth_labels: Tensor, crowd: Tensor
) -> float:
    """Return AP of one image from one ranking of all classes, of M regions and N annotated ones."""
    if not bool((~crowd).any()):
        return float("nan")
    if not len(labels):
        return 0.0
    matched, ignored = coco_match(shape, scores, labels, regions, truths, truth_labels, crowd)
    return average_precision(matched, ignored, int((~crowd).sum()))


def coco_match(
    shape: Shape, scores: Tensor, labels: Tensor, regions: Tensor, truths: Tensor, truth_labels: Tensor, crowd: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Match detections by COCO's rules, class by class; arguments as `ranked_ap`.

    Return two bool arrays (T, M) with the detections of all classes ranked by score, at most `MAX_DETECTIONS`: which
    match an annotated object at each IoU threshold, and which are ignored because they match a crowd region.
    """
    categories = sorted({*labels.tolist(), *truth_labels.tolist()})
    detections = annotations(shape, labels, regions, categories, score=scores)
    annotated = annotations(shape, truth_labels, truths, categories, iscrowd=crowd.int())
    image = Scored(0, 0, 0, detections, annotated)  # codes have the size of their mask, and boxes need none
    every_area = {"areaRng": [[0, 1e10]], "areaRngLbl": ["all"]}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluation = evaluate(shape, [image], categories, maxDets=[MAX_DETECTIONS], **every_area)
    by_class = [result for result in evaluation.evalImgs if result is not None]
    ranked_scores = np.concatenate([result["dtScores"] for result in by_class])
    order = np.argsort(-ranked_scores, kind="stable")[:MAX_DETECTIONS]
    matched = np.concatenate([result["dtMatches"] for result in by_class], 1)[:, order].astype(bool)
    ignored = np.concatenate([result["dtIgnore"] for result in by_class], 1)[:, order].astype(bool)
    return matched, ignored


def average_precision(matched: np.ndarray, ignored: np.ndarray, num_truths: int) -> float:
    """Return the area under the precision-recall curve, averaged over thresholds, of ranked detections (T, M)."""
    hits = np.cumsum(matched & ~ignored, 1)
    misses = np.cumsum(~matched & ~ignored, 1)
    recall = hits / num_truths
    precision = hits / np.maximum(hits + misses, 1)
    best_precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]  # at this recall or a higher one
    return float(np.mean([read_off(p, r) for p, r in zip(best_precision, recall, strict=True)]))


def read_off(precision: np.ndarray, recall: np.ndarray) -> float:
    """Return the mean of precision (M,) at COCO's recalls, zero at recalls that are not reached."""
    places = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(precision, 0.0)[places].mean())
