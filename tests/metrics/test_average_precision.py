import contextlib
import io
from pathlib import Path

import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO as Annotations

from src.metrics.average_precision import MaskAP, encode

COCO = Path(__file__).parents[2].parent / "shared/data/coco"
SPLITS = pytest.mark.parametrize("split", ["train2017", "val2017"])
SAMPLE = pytest.mark.skipif(not COCO.exists(), reason="needs the COCO sample")


def boxes(*corners, size=(40, 50)):
    """Rectangles (top, left, bottom, right) as masks (M, H, W)."""
    masks = torch.zeros(len(corners), *size, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def truth(masks, labels, crowd=(), areas=None):
    """The last four arguments of `update`."""
    is_crowd = torch.tensor([n in crowd for n in range(len(masks))], dtype=torch.bool)
    areas = masks.sum((1, 2)).float() if areas is None else torch.tensor(areas)
    return masks, torch.tensor(labels, dtype=torch.int64), is_crowd, areas


def found(masks, labels, scores=None):
    """The first three arguments of `update` after the image id."""
    scores = torch.ones(len(masks)) if scores is None else torch.tensor(scores)
    return scores, torch.tensor(labels, dtype=torch.int64), masks


def scores_of(metric):
    return {name: float(value) for name, value in metric.compute().items()}


A, B = (0, 0, 10, 10), (20, 20, 30, 40)


def test_itself_is_one():
    """Truth against itself is 1, and nan for the sizes that do not occur."""
    metric, masks = MaskAP([0, 7]), boxes(A, B)
    metric.update(3, *found(masks, [7, 0]), *truth(masks, [7, 0]))
    result = scores_of(metric)
    assert result["ap"] == result["ap50"] == result["ap75"] == result["ap_small"] == pytest.approx(1)
    assert result["ap_medium"] != result["ap_medium"]
    assert list(result) == ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]


def test_hand_computed():
    """A mask of IoU 0.7 is right at five of the ten thresholds, and the one class missed halves the mean."""
    metric = MaskAP([0, 1])
    metric.update(0, *found(boxes((0, 0, 10, 7)), [0]), *truth(boxes(A, B), [0, 1]))
    result = scores_of(metric)
    assert result["ap50"] == pytest.approx(1 / 2)
    assert result["ap75"] == 0
    assert result["ap"] == pytest.approx(5 / 10 / 2)


def test_better_scores_first():
    """One right and one wrong detection give 1 if the right one is surer, one half otherwise."""
    for scores, expected in (([0.9, 0.1], 1), ([0.1, 0.9], 1 / 2)):
        metric = MaskAP([0])
        metric.update(0, *found(boxes(A, B), [0, 0], scores), *truth(boxes(A), [0]))
        assert scores_of(metric)["ap"] == pytest.approx(expected)


def test_size_is_the_annotated_area():
    """Small, medium and large follow the annotated area, and the mask's own for detections without a match."""
    metric = MaskAP([0])
    metric.update(0, *found(boxes(A, B), [0, 0]), *truth(boxes(A), [0], areas=[2000.0]))
    result = scores_of(metric)
    assert result["ap_medium"] == pytest.approx(1)  # the false positive is small
    assert result["ap_small"] != result["ap_small"]


def test_size_of_a_detection_is_its_mask_not_its_box():
    """A wrong detection whose mask is small is no false positive among the medium, though its box is medium."""
    wrong = boxes((0, 0, 40, 1), (0, 0, 1, 50)).any(0, keepdim=True)  # 89 pixels in a box of 2000
    metric = MaskAP([0])
    metric.update(0, *found(torch.cat([wrong, boxes(A)]), [0, 0], [0.9, 0.1]), *truth(boxes(A), [0], areas=[2000.0]))
    assert scores_of(metric)["ap_medium"] == pytest.approx(1)


def test_crowd_is_neither_missed_nor_wrong():
    """A crowd region excuses detections within it and asks for none."""
    region = boxes((0, 0, 20, 20), B)
    for detections in (boxes(B), boxes(B, A)):
        metric = MaskAP([0])
        metric.update(0, *found(detections, [0] * len(detections)), *truth(region, [0, 0], crowd=[0]))
        assert scores_of(metric)["ap"] == pytest.approx(1)


def test_the_mean_is_that_of_the_classes():
    """Each class has the AP that it has alone, however its ids are ordered; one without truth, though found, none."""
    masks = torch.rand(40, 40, 50, generator=torch.Generator().manual_seed(0)) > 0.3
    classes = [5, 0, 3, 1]
    whole, alone = MaskAP(classes), {index: MaskAP([index]) for index in classes}
    for image in range(10):
        truths, labels = masks[4 * image : 4 * image + 4], [5, 0, 3, 3]
        near = truths & (torch.rand(4, 40, 50, generator=torch.Generator().manual_seed(image)) > image / 40)
        given = found(near, [5, [0, 1][image % 2], 3, [3, 5][image % 2]], [0.9, 0.7, 0.5, 0.2])
        for metric in (whole, *alone.values()):
            metric.update(image, *given, *truth(truths, labels))
    by_class = whole.by_class()
    assert list(by_class) == [5, 0, 3]
    for index, one in by_class.items():
        assert one["ap"] == pytest.approx(scores_of(alone[index])["ap"])
    assert len({one["ap"] for one in by_class.values()}) == 3
    assert sum(one["ap"] for one in by_class.values()) / 3 == pytest.approx(scores_of(whole)["ap"])


def test_a_class_of_crowds_alone_has_no_ap():
    """Nor does it enter the mean."""
    metric = MaskAP([0, 1])
    metric.update(0, *found(boxes(A, B), [0, 1]), *truth(boxes(A, B), [0, 1], crowd=[1]))
    assert list(metric.by_class()) == [0]
    assert scores_of(metric)["ap"] == pytest.approx(1)


def test_other_classes_are_left_out():
    """Segments and detections of classes that are not considered change nothing."""
    metric = MaskAP([2])
    metric.update(0, *found(boxes(B, A), [1, 2]), *truth(boxes(A, B), [2, 5]))
    assert scores_of(metric)["ap"] == pytest.approx(1)


def test_codes_are_as_good_as_masks():
    """Run-length codes instead of masks give the same, and encoding keeps every pixel."""
    masks = torch.rand(5, 40, 50, generator=torch.Generator().manual_seed(0)) > 0.5
    codes = encode(masks)
    assert torch.equal(torch.from_numpy(coco_mask.decode(codes)).permute(2, 0, 1).bool(), masks)
    results = []
    for given in (masks, codes):
        metric = MaskAP([0, 1])
        metric.update(0, *found(given, [0, 1, 0, 1, 3]), *truth(masks.roll(3, -1) | masks, [0, 1, 0, 1, 3]))
        results.append(scores_of(metric)["ap"])
    assert results[0] == results[1] > 0


def test_empty_in_nan_out():
    """No images, images without segments, and detections without truth have no AP; missing all is 0."""
    none, one = (boxes(), []), (boxes(A), [0])
    for detections, truths, expected in ((none, none, None), (one, none, None), (none, one, 0)):
        metric = MaskAP([0])
        metric.update(0, *found(*detections), *truth(*truths))
        value = scores_of(metric)["ap"]
        assert value == expected if expected is not None else value != value
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert MaskAP([0]).compute()["ap"].isnan()


def test_an_image_twice_is_refused():
    """Scoring an image twice is a ValueError naming it, and after a reset it may come again."""
    metric, args = MaskAP([0]), (*found(boxes(A), [0]), *truth(boxes(A), [0]))
    metric.update(17, *args)
    metric.update(17, *args)
    with pytest.raises(ValueError, match="17"):
        metric.compute()
    metric.reset()
    metric(17, *args)  # a call is an update
    assert scores_of(metric)["ap"] == pytest.approx(1)


def test_masks_of_another_size_are_refused():
    """Detections that are not of the truth's size are a ValueError, not an AP of 0."""
    metric = MaskAP([0])
    with pytest.raises(ValueError, match="image 4"):
        metric.update(4, *found(boxes(A, size=(20, 25)), [0]), *truth(boxes(A), [0]))


def test_it_is_silent_and_repeats_itself(capfd):
    """Nothing is printed, and computing again after more images counts the earlier ones as before."""
    metric, none = MaskAP([0]), (*found(boxes(), []), *truth(boxes(), []))
    metric.update(0, *found(boxes(A), [0]), *truth(boxes(A, B), [0, 0]))
    first = scores_of(metric)["ap"]
    metric.update(1, *none)
    assert scores_of(metric)["ap"] == first
    metric.update(2, *found(boxes(A), [0]), *truth(boxes(A), [0]))
    assert first < metric.by_class()[0]["ap"] == pytest.approx(scores_of(metric)["ap"])
    metric.reset()
    metric.update(0, *none)
    assert metric.by_class() == {}
    assert capfd.readouterr() == ("", "")


class Elsewhere:
    """Objects of a class that stand elsewhere: a square of class 4 and one of class 0."""

    def of(self, image_id, size):
        codes = encode(boxes(A, B))
        return [
            {"category_id": index, "iscrowd": 0, "segmentation": code, "area": 100.0}
            for index, code in zip((4, 0), codes, strict=True)
            if index == 4 or image_id == 2
        ]


def test_truth_from_elsewhere():
    """It replaces the truth that is given, for the classes considered."""
    for image_id, classes, expected in ((2, [4], 1), (2, [4, 0], 1 / 2), (3, [4, 0], 1)):
        metric = MaskAP(classes)
        metric.truth = Elsewhere()
        metric.update(image_id, *found(boxes(A), [4], [0.5]), *truth(boxes(B, B), [4, 0]))
        assert scores_of(metric)["ap"] == pytest.approx(expected)


def annotated(split):
    """The official instances of a split, and their category ids."""
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = Annotations(str(COCO / f"annotations/instances_{split}.json"))
    return annotations, sorted(annotations.cats)


@pytest.mark.slow
@SPLITS
@SAMPLE
def test_coco_against_itself_is_one(split):
    """On real annotations the truth, crowd regions left aside as no detection, has an AP of 1 whatever the size."""
    annotations, categories = annotated(split)
    from_masks = MaskAP(range(80))
    for image_id, image in annotations.imgs.items():
        segments = annotations.imgToAnns[image_id]
        codes = [annotations.annToRLE(segment) for segment in segments]
        labels = torch.tensor([categories.index(segment["category_id"]) for segment in segments], dtype=torch.int64)
        crowd = torch.tensor([bool(segment["iscrowd"]) for segment in segments], dtype=torch.bool)
        areas = torch.tensor([float(segment["area"]) for segment in segments])
        masks = torch.zeros(len(codes), image["height"], image["width"], dtype=torch.bool)
        for mask, code in zip(masks, codes, strict=True):
            mask[:] = torch.from_numpy(coco_mask.decode(code))
        truths = (masks, labels, crowd, areas)
        from_masks.update(image_id, torch.ones(int((~crowd).sum())), labels[~crowd], masks[~crowd], *truths)
    assert list(scores_of(from_masks).values()) == pytest.approx([1] * 6, abs=1e-6)
