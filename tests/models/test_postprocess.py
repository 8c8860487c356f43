"""From logits to segments."""

import pytest
import torch
import torch.nn.functional as F

from src.models import postprocess
from src.models.postprocess import Frame, Postprocess
from src.models.transformer_decoder import Prediction

# class 0 is a thing, class 1 is stuff
POST = Postprocess([True, False])
FRAME = Frame((32, 32), (32, 24), (16, 12))


def make_prediction(entries: list[tuple[int, float, torch.Tensor]]) -> Prediction:
    """Queries given as (class, score, mask (8, 8) bool)."""
    classes = torch.stack(
        [torch.tensor([(1 - s) / 2] * 3).index_fill(0, torch.tensor(c), s) for c, s, _ in entries]
    ).log()
    masks = torch.stack([20.0 * mask - 10 for *_, mask in entries])
    return Prediction(classes[None], masks[None])


def box(top: int, left: int, bottom: int, right: int) -> torch.Tensor:
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def naive_panoptic(prediction: Prediction, frame: Frame) -> tuple[torch.Tensor, list[int]]:
    """The published order of steps: upsample all masks, then select, one query after the other."""
    masks = F.interpolate(prediction.mask_logits, frame.padded, mode="bilinear", align_corners=False)
    masks = masks[..., : frame.resized[0], : frame.resized[1]]
    masks = F.interpolate(masks, frame.original, mode="bilinear", align_corners=False)[0].sigmoid()
    scores, labels = prediction.class_logits[0].softmax(-1).max(-1)
    keep = [q for q in range(len(scores)) if labels[q] != prediction.class_logits.shape[-1] - 1 and scores[q] > 0.8]
    ids, found, stuff = torch.zeros(frame.original, dtype=torch.int32), [], {}
    if not keep:
        return ids, found
    owner = torch.stack([scores[q] * masks[q] for q in keep]).argmax(0)
    for k, q in enumerate(keep):
        won, full = owner == k, masks[q] >= 0.5
        final = won & full
        if not (won.any() and full.any() and final.any()) or won.sum() / full.sum() < 0.8:
            continue
        label = int(labels[q])
        if label in stuff:
            ids[final] = stuff[label]
            continue
        found.append(label)
        ids[final] = len(found)
        if not POST.isthing[label]:
            stuff[label] = len(found)
    return ids, found


def test_selecting_before_upsampling_changes_nothing() -> None:
    """Random queries, some kept and some not: the same map as the published order of steps."""
    for seed in range(20):
        torch.manual_seed(seed)
        queries = 40  # more than are upsampled at a time
        owner = torch.randint(0, queries, (4, 4)).repeat_interleave(2, 0).repeat_interleave(2, 1)
        masks = 8.0 * (owner == torch.arange(queries)[:, None, None]) - 4 + 3 * torch.randn(queries, 8, 8)
        prediction = Prediction(4 * torch.randn(1, queries, 3), masks[None])
        ids, labels = naive_panoptic(prediction, FRAME)
        result = POST.panoptic(prediction, 0, FRAME)
        assert torch.equal(result.ids, ids)
        assert result.labels.tolist() == labels


def test_stuff_of_a_class_is_one_segment_and_things_stay_apart() -> None:
    """Two left-and-right queries: one id for stuff, two for things."""
    left, right = box(0, 0, 8, 3), box(0, 3, 8, 8)
    stuff = POST.panoptic(make_prediction([(1, 0.95, left), (1, 0.9, right)]), 0, FRAME)
    things = POST.panoptic(make_prediction([(0, 0.95, left), (0, 0.9, right)]), 0, FRAME)
    assert stuff.labels.tolist() == [1]
    assert stuff.ids.unique().tolist() == [1]
    assert things.labels.tolist() == [0, 0]


def test_doubtful_and_covered_queries_are_dropped() -> None:
    """A score below 0.8 wins nothing; neither does a query that loses most of its mask to a surer one."""
    prediction = make_prediction([(0, 0.99, box(0, 0, 8, 8)), (0, 0.85, box(0, 0, 4, 4)), (1, 0.7, box(4, 4, 8, 8))])
    assert POST.panoptic(prediction, 0, FRAME).labels.tolist() == [0]


def test_nothing_in_nothing_out() -> None:
    """Without a sure query all pixels are unlabelled, and there are still instances with low scores."""
    prediction = make_prediction([(2, 0.99, box(0, 0, 8, 8))])
    result = POST.panoptic(prediction, 0, FRAME)
    assert not result.ids.any()
    assert len(result.labels) == 0
    assert POST.instances(prediction, 0, FRAME).masks.shape == (1, 16, 12)


def test_an_image_of_stuff_alone_has_no_instances() -> None:
    """Where none of the best pairs is a thing, there are no masks, of the right size."""
    prediction = make_prediction([(1, 0.9, box(0, 0, 8, 8))])
    assert Postprocess([True, False], num_instances=1).instances(prediction, 0, FRAME).masks.shape == (0, 16, 12)


def test_instances_are_things_scored_by_class_times_mask() -> None:
    """Score = class score x mean probability inside the mask; stuff is left out; sizes are the original image's."""
    prediction = make_prediction([(0, 0.9, box(0, 0, 8, 3)), (1, 0.9, box(0, 3, 8, 8))])
    instances = POST.instances(prediction, 0, FRAME)
    assert set(instances.labels.tolist()) == {0}
    best = instances.scores.argmax()
    assert 0.85 < instances.scores[best] < 0.9
    assert instances.masks[best][:, :4].all()
    assert not instances.masks[best][:, 8:].any()


@pytest.mark.parametrize("resize_last", [False, True])
@pytest.mark.parametrize("limit", ["SUMS", "CACHED", "HELD"])
def test_limits_of_memory_do_not_change_the_semantic_map(
    limit: str, resize_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes, pixels or rows a few at a time, as all 300 classes of all pixels at once: the largest sum of each."""
    torch.manual_seed(0)
    prediction = Prediction(4 * torch.randn(1, 40, 301), 3 * torch.randn(1, 40, 8, 8))
    expected = naive_semantic(prediction, FRAME, resize_last)
    for most in (2**28, 300 * 40 * 3, 40 * 12):
        monkeypatch.setattr(postprocess, limit, most)
        assert torch.equal(POST.semantic(prediction, 0, FRAME, resize_last), expected)
    assert expected.min() < 7
    assert expected.max() > 255


def naive_semantic(prediction: Prediction, frame: Frame, resize_last: bool) -> torch.Tensor:
    """The published sums, all at once."""
    masks = F.interpolate(prediction.mask_logits, frame.padded, mode="bilinear", align_corners=False)
    masks = masks[..., : frame.resized[0], : frame.resized[1]]
    if not resize_last:
        masks = F.interpolate(masks, frame.original, mode="bilinear", align_corners=False)
    class_scores = prediction.class_logits.softmax(-1)[..., :-1]
    total = torch.einsum("bqk,bqhw->bkhw", class_scores, masks.sigmoid())
    return F.interpolate(total, frame.original, mode="bilinear", align_corners=False)[0].argmax(0)


def test_semantic_takes_the_strongest_class() -> None:
    """Class score x mask probability, summed over queries; resizing first or last agrees away from edges."""
    prediction = make_prediction([(0, 0.9, box(0, 0, 8, 3)), (1, 0.9, box(0, 3, 8, 8))])
    first = POST.semantic(prediction, 0, FRAME)
    last = POST.semantic(prediction, 0, FRAME, resize_last=True)
    assert (first[:, :5] == 0).all()
    assert (first[:, 8:] == 1).all()
    assert (first == last).float().mean() > 0.95


def test_padding_is_cut_off_before_resizing() -> None:
    """What lies in the padding never shows in the original image."""
    prediction = make_prediction([(0, 0.95, box(0, 7, 8, 8))])  # columns 28..31 of 32, the image ends at 24
    assert not POST.panoptic(prediction, 0, FRAME).ids.any()
