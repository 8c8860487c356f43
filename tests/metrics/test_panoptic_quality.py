import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.metrics.image_quality import image_pq
from src.metrics.panoptic_quality import PanopticQuality, class_quality, panoptic_counts

COCO = Path(__file__).parents[2].parent / "shared/data/coco"
NUM_CLASSES = 3


def ids(*rows):
    """A map from its rows, a digit a pixel."""
    return torch.tensor([[int(pixel) for pixel in row] for row in rows])


def counts(pred, pred_labels, truth, truth_labels, crowd=()):
    """`panoptic_counts` of lists; nothing is crowd but the segments numbered in `crowd`."""
    is_crowd = torch.tensor([n in crowd for n in range(1, len(truth_labels) + 1)], dtype=torch.bool)
    pred_labels, truth_labels = (torch.tensor(labels, dtype=torch.int64) for labels in (pred_labels, truth_labels))
    return panoptic_counts(pred, pred_labels, truth, truth_labels, is_crowd, NUM_CLASSES)


def obvious_counts(pred_ids, pred_labels, truth_ids, truth_labels, crowd, num_classes):
    """The benchmark's rules, one pair of masks after the other."""
    total = np.zeros((num_classes, 4))
    pred_ids, truth_ids = pred_ids.numpy(), truth_ids.numpy()
    preds = [(pred_ids == n, int(label)) for n, label in enumerate(pred_labels, 1)]
    pairs = zip(truth_labels, crowd, strict=True)
    truths = [(truth_ids == n, int(label), bool(c)) for n, (label, c) in enumerate(pairs, 1)]
    preds = [pred for pred in preds if pred[0].any()]
    truths = [truth for truth in truths if truth[0].any()]
    void = truth_ids == 0
    used = set()
    for mask, label, is_crowd in truths:
        if is_crowd:
            continue
        found = False
        for place, (pred, pred_label) in enumerate(preds):
            inter = (pred & mask).sum()
            iou = inter / ((pred & ~void) | mask).sum()
            if pred_label == label and iou > 0.5:
                total[label] += (1, 0, 0, iou)
                used.add(place)
                found = True
        if not found:
            total[label, 2] += 1
    for place, (pred, label) in enumerate(preds):
        if place in used:
            continue
        forgiven = void.copy()
        for mask, truth_label, is_crowd in truths:
            if is_crowd and truth_label == label:
                forgiven |= mask
        if (pred & forgiven).sum() / pred.sum() <= 0.5:
            total[label, 1] += 1
    return total


def scene(seed, void=False, crowd=False, unlabelled=False):
    """Arguments of `panoptic_counts`: blocks of segments, predicted a little beside where they are."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(1, 9, (5, 6))
    if void:
        blocks[rng.random(blocks.shape) < 0.25] = 0
    truth = blocks.repeat(4, 0).repeat(4, 1)
    pred = np.roll(truth, rng.integers(-1, 2, 2), (0, 1))
    pred[pred == 0] = rng.integers(1, 9)
    wrong = rng.integers(0, 8, 2)
    truth_labels = rng.integers(0, NUM_CLASSES, 8)
    pred_labels = truth_labels.copy()
    pred_labels[wrong] = rng.integers(0, NUM_CLASSES, 2)
    if unlabelled:
        pred[(rng.random((5, 6)) < 0.25).repeat(4, 0).repeat(4, 1)] = 0
    is_crowd = rng.random(8) < (0.4 if crowd else 0)
    return tuple(torch.as_tensor(value) for value in (pred, pred_labels, truth, truth_labels, is_crowd))


CASES = [{}, {"void": True}, {"crowd": True}, {"unlabelled": True}, {"void": True, "crowd": True, "unlabelled": True}]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "+".join(case) or "plain")
def test_counts_equal_obvious_loops(case):
    """On random scenes the counts are those of plain loops over pairs of masks."""
    for seed in range(40):
        args = scene(seed, **case)
        np.testing.assert_allclose(panoptic_counts(*args, NUM_CLASSES), obvious_counts(*args, NUM_CLASSES), rtol=1e-12)


def test_arguments_stay_as_they_are():
    """Counting changes none of its arguments, so one tensor may be prediction and truth."""
    args = scene(0, void=True)
    before = [arg.clone() for arg in args]
    panoptic_counts(*args, NUM_CLASSES)
    assert all(map(torch.equal, args, before))


def test_iou_of_one_pair():
    """A prediction of 3 pixels in a segment of 4 is a match of IoU 3/4, and pixels left unlabelled cost it."""
    assert counts(ids("1110"), [1], ids("1111"), [1])[1].tolist() == [1, 0, 0, 0.75]


def test_half_is_no_match():
    """An IoU of exactly one half is no match but a false positive and a false negative."""
    assert counts(ids("1100"), [1], ids("1111"), [1])[1].tolist() == [0, 1, 1, 0]


def test_classes_do_not_match():
    """The right pixels with the wrong class are a false positive of the one and a false negative of the other."""
    result = counts(ids("1111"), [0], ids("1111"), [2])
    assert result.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]


def test_void_leaves_the_union():
    """Pixels predicted where the truth is void do not lower the IoU of a match."""
    assert counts(ids("1111"), [1], ids("1100"), [1])[1].tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(("truth", "false_positives"), [("00011", 0), ("00111", 1), ("0011", 1)])
def test_void_excuses_by_more_than_half(truth, false_positives):
    """An unmatched prediction is excused only if more than half of it lies on void."""
    result = counts(ids("1" * len(truth)), [0], ids(truth), [1])
    assert result[0].tolist() == [0, false_positives, 0, 0]


def test_crowd_excuses_its_own_class_only():
    """A prediction on a crowd region is excused if it is of the region's class, and a crowd region is never missed."""
    assert counts(ids("1111"), [1], ids("1111"), [1], crowd=[1]).sum() == 0
    assert counts(ids("1111"), [0], ids("1111"), [1], crowd=[1]).tolist() == [[0, 1, 0, 0], [0] * 4, [0] * 4]


def test_void_and_crowd_excuse_together():
    """Void and crowd regions of the class add up, several regions as well as one."""
    assert counts(ids("111111"), [1], ids("012333"), [1, 1, 2], crowd=[1, 2]).tolist()[1] == [0, 1, 0, 0]
    assert counts(ids("111111"), [1], ids("001233"), [1, 1, 2], crowd=[1, 2]).tolist()[1] == [0, 0, 0, 0]


def test_crowd_regions_of_a_class_excuse_together():
    """Two that each hold less than half of a prediction; panopticapi knows the last one only, and counts it wrong."""
    assert counts(ids("11111"), [1], ids("11223"), [1, 1, 0], crowd=[1, 2])[1].tolist() == [0] * 4
    assert counts(ids("11111"), [1], ids("11223"), [1, 0, 0], crowd=[1, 2])[1].tolist() == [0, 1, 0, 0]


def test_segments_without_pixels_do_not_count():
    """A label whose number is nowhere in its map is neither a false positive nor a false negative."""
    assert counts(ids("22"), [0, 1], ids("22"), [2, 1]).tolist() == [[0] * 4, [1, 0, 0, 1], [0] * 4]


def test_nothing_predicted_and_nothing_true():
    """No predicted segments miss all, no annotated ones excuse all, and of neither the quality is nan."""
    assert counts(ids("00"), [], ids("12"), [0, 0]).tolist()[0] == [0, 0, 2, 0]
    assert counts(ids("12"), [0, 0], ids("00"), []).sum() == 0
    assert math.isnan(image_pq(counts(ids("00"), [], ids("00"), [])))


def test_nothing_to_find_has_no_quality():
    """Predictions that nothing excuses are wrong where something is to be found, and no score where nothing is."""
    metric = PanopticQuality(NUM_CLASSES, [True, True, False])
    metric.update(*scene_of(ids("1122"), [0, 2], ids("1111"), [1])[:4], torch.tensor([True]))
    assert metric.counts[:, 1].tolist() == [1, 0, 1]
    assert all(value.isnan() for value in metric.compute().values())
    assert metric.by_class() == {}
    assert math.isnan(image_pq(metric.counts))
    metric.update(*scene_of(ids("11"), [1], ids("11"), [1]))
    assert metric.compute()["pq"] == pytest.approx(1 / 3)
    assert metric.by_class().keys() == {0, 1, 2}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_maps_of_any_integer_type(dtype):
    """The counts do not depend on the integer type of the maps, though 16 x 17 exceeds a byte."""
    row = torch.arange(17).to(dtype)[None]
    labels = torch.zeros(16, dtype=torch.int64)
    result = panoptic_counts(row, labels, row, labels, torch.zeros(16, dtype=torch.bool), 1)
    assert result.tolist() == [[16, 0, 0, 16]]


@pytest.mark.parametrize(("pred", "truth"), [("2", "1"), ("1", "2"), ("11", "1")])
def test_wrong_maps_are_refused(pred, truth):
    """A map that names more segments than there are labels, or is of another size, is a ValueError."""
    with pytest.raises(ValueError, match="got"):
        counts(ids(pred), [0], ids(truth), [0])


def test_quality_by_hand():
    """IoU 0.6 and 0.8, 1 FP and 1 FN are SQ 0.7, RQ 2/3, PQ 1.4/3; a class never matched has 0, an absent one nan."""
    quality = class_quality(torch.tensor([[2, 1, 1, 1.4], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.float64))
    expected = torch.tensor([[1.4 / 3, 0.7, 2 / 3], [0, 0, 0], [torch.nan] * 3], dtype=torch.float64)
    torch.testing.assert_close(quality, expected, equal_nan=True)


def test_image_quality_is_the_mean_over_its_classes():
    """The PQ of one image averages over classes predicted or annotated in it, not over all."""
    result = counts(ids("1122"), [0, 1], ids("1122"), [0, 2])
    assert image_pq(result) == pytest.approx(1 / 3)  # one class right, one predicted in vain, one missed
    assert image_pq(counts(ids("11"), [0], ids("11"), [0])) == 1


def test_means_over_things_and_stuff():
    """Things and stuff are averaged apart, classes that did not occur left out, and a mean over none is nan."""
    metric = PanopticQuality(NUM_CLASSES, [True, True, False])
    metric.update(*scene_of(ids("1122"), [0, 2], ids("1122"), [0, 0]))
    result = metric.compute()
    assert result["pq_things"] == pytest.approx(2 / 3)  # 1 TP and 1 FN
    assert result["sq_things"] == 1
    assert result["pq_stuff"] == result["sq_stuff"] == result["rq_stuff"] == 0
    assert result["pq"] == pytest.approx(1 / 3)
    by_class = metric.by_class()
    assert by_class[0] == pytest.approx({"pq": 2 / 3, "sq": 1, "rq": 2 / 3})
    assert list(by_class) == [index for index, row in enumerate(metric.counts.tolist()) if any(row)]
    metric.reset()
    metric.update(*scene_of(ids("11"), [0], ids("11"), [0]))
    assert metric.compute()["pq_stuff"].isnan()
    with pytest.raises(ValueError, match="isthing"):
        PanopticQuality(NUM_CLASSES, [True])


def scene_of(pred, pred_labels, truth, truth_labels):
    """Arguments of `update` from lists, without crowd."""
    crowd = torch.zeros(len(truth_labels), dtype=torch.bool)
    return pred, torch.tensor(pred_labels), truth, torch.tensor(truth_labels), crowd


def test_the_scores_are_the_means_of_those_by_class():
    """Of pq, sq and rq, and each class has what the obvious counts of it come to; one not in sight has nothing."""
    metric, counted = PanopticQuality(NUM_CLASSES + 1, [True] * (NUM_CLASSES + 1)), np.zeros((NUM_CLASSES + 1, 4))
    for seed in range(6):
        args = scene(seed, void=True, crowd=True)
        metric.update(*args)
        counted += obvious_counts(*args, NUM_CLASSES + 1)
    by_class, means = metric.by_class(), metric.compute()
    assert list(by_class) == list(range(NUM_CLASSES))
    for index, (tp, fp, fn, iou) in enumerate(counted[:NUM_CLASSES]):
        expected = {"pq": iou / (tp + fp / 2 + fn / 2), "sq": iou / tp, "rq": tp / (tp + fp / 2 + fn / 2)}
        assert by_class[index] == pytest.approx(expected, abs=1e-6)
    for name in ("pq", "sq", "rq"):
        assert np.mean([one[name] for one in by_class.values()]) == pytest.approx(float(means[name]), abs=1e-6)
    assert len({one["pq"] for one in by_class.values()}) == NUM_CLASSES


def test_a_class_predicted_in_vain_counts_as_in_its_mean():
    """With 0, as the benchmark has it."""
    metric = PanopticQuality(NUM_CLASSES, [True] * NUM_CLASSES)
    metric.update(*scene_of(ids("12"), [0, 1], ids("11"), [0]))
    assert metric.by_class()[1]["pq"] == 0


def test_sum_of_halves_is_the_whole():
    """The counts of two halves of a data set add up to those of the whole, and these are the sum over images."""
    scenes = [scene(seed, void=True, crowd=True, unlabelled=True) for seed in range(10)]
    first, second, whole = (PanopticQuality(NUM_CLASSES, [True, True, False]) for _ in range(3))
    for n, args in enumerate(scenes):
        (first if n < 5 else second).update(*args)
        whole.update(*args)
    torch.testing.assert_close(first.counts + second.counts, whole.counts)
    total = sum(panoptic_counts(*args, NUM_CLASSES) for args in scenes)
    torch.testing.assert_close(whole.counts, total.float())
    assert whole.compute()["pq"] == pytest.approx(float(class_quality(total)[:, 0].nanmean()), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train2017", "val2017"])
@pytest.mark.skipif(not COCO.exists(), reason="needs the COCO sample")
def test_coco_against_itself_is_one(split):
    """On real annotations the truth scores exactly 1, its crowd regions included."""
    annotated = json.loads((COCO / f"annotations/panoptic_{split}.json").read_text())
    categories = {category["id"]: index for index, category in enumerate(annotated["categories"])}
    metric = PanopticQuality(len(categories), [bool(category["isthing"]) for category in annotated["categories"]])
    for image in annotated["annotations"]:
        rgb = np.asarray(Image.open(COCO / f"panoptic_{split}" / image["file_name"]).convert("RGB")).astype(np.int64)
        colors = rgb @ [1, 256, 65536]
        infos = sorted(image["segments_info"], key=lambda info: info["id"])
        known = np.array([0] + [info["id"] for info in infos])
        segments = np.searchsorted(known, colors)
        assert (known[segments] == colors).all()
        labels = torch.tensor([categories[info["category_id"]] for info in infos])
        crowd = torch.tensor([bool(info["iscrowd"]) for info in infos])
        ids = torch.from_numpy(segments)
        metric.update(ids, labels, ids, labels, crowd)
    result = metric.compute()
    assert {name: float(value) for name, value in result.items()} == dict.fromkeys(result, 1.0)
