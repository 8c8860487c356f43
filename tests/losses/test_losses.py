"""Points, matching and losses."""

import math

import pytest
import torch
import torch.nn.functional as F

from src.data.targets import Truth
from src.losses.criterion import SetCriterion
from src.losses.matcher import HungarianMatcher
from src.losses.points import sample_segments, uncertain_points
from src.models.transformer_decoder import Prediction

NO_LABELS = torch.zeros(0, dtype=torch.long)


def make_predictions(images: int = 2, queries: int = 6, classes: int = 3, layers: int = 2) -> list[Prediction]:
    torch.manual_seed(0)
    return [
        Prediction(
            torch.randn(images, queries, classes + 1, requires_grad=True),
            torch.randn(images, queries, 8, 8, requires_grad=True),
        )
        for _ in range(layers)
    ]


def make_criterion(classes: int = 3) -> SetCriterion:
    return SetCriterion(classes, HungarianMatcher(num_points=64), num_points=64)


def truths_of(labels: list[torch.Tensor], segments: torch.Tensor) -> list[Truth]:
    """Truths of images with maps of one size (B, L, H, W)."""
    return [
        Truth(layers, label, torch.zeros(len(label), dtype=torch.bool), torch.ones(len(label)))
        for label, layers in zip(labels, segments, strict=True)
    ]


def two_halves() -> torch.Tensor:
    """Two images (2, 1, 32, 32): the first has two segments, the second one."""
    segments = torch.zeros(2, 1, 32, 32, dtype=torch.int32)
    segments[0, 0, :16], segments[0, 0, 16:], segments[1, 0, :, :10] = 1, 2, 1
    return segments


def test_truth_at_points_equals_sampling_dense_masks() -> None:
    """Reading the integer map gives what bilinear sampling of each mask gives, at borders and in every layer."""
    torch.manual_seed(0)
    segments = torch.randint(0, 5, (2, 3, 11, 7), dtype=torch.int32)
    image, number = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([1, 4, 2, 3, 4])
    points = torch.rand(5, 200, 2) * 1.1 - 0.05  # some outside
    for layer in range(3):  # each segment has one layer
        segments[:, layer][(segments[:, layer] % 3) != layer] = 0
    masks = (segments[image] == number[:, None, None, None]).any(1).float()
    expected = F.grid_sample(masks[:, None], 2 * points[:, None] - 1, align_corners=False)[:, 0, 0]
    torch.testing.assert_close(sample_segments(segments, image, number[:, None], points)[:, 0], expected)
    both = sample_segments(segments, image[1:3], number[torch.tensor([[1, 0], [2, 4]])], points[1:3])
    torch.testing.assert_close(both[:, 0], expected[1:3])


def test_uncertain_points_lie_where_the_sign_changes() -> None:
    """Three quarters of the points are near the edge of a mask, far more than chance would put there."""
    torch.manual_seed(0)
    logits = torch.linspace(-5, 5, 32).expand(1, 32, 32).contiguous()  # changes sign in the middle column
    x = uncertain_points(logits, 400, 3.0, 0.75)[..., 0]
    near = ((x - 0.5).abs() < 0.15).float().mean()
    assert near > 0.6


def test_matched_pairs_are_as_many_as_the_targets() -> None:
    """Every segment gets one query of its own image, no query two."""
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    matches, num_bad = HungarianMatcher(num_points=64)(make_predictions(), labels, two_halves())
    assert num_bad == 0
    for match in matches:
        assert sorted(zip(match.image.tolist(), match.segment.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0)]
        assert len(set(zip(match.image.tolist(), match.query.tolist(), strict=True))) == 3


def test_a_query_that_is_right_is_matched() -> None:
    """A query with the class and the mask of a segment answers for it."""
    predictions = make_predictions(layers=1)
    segments = two_halves()
    masks = F.interpolate((segments[:, 0] == 2).float()[:, None], (8, 8))[:, 0]
    with torch.no_grad():
        predictions[0].mask_logits[0, 4] = 20 * masks[0] - 10
        predictions[0].class_logits[0, 4] = torch.tensor([-9.0, -9.0, 9.0, -9.0])
    labels = [torch.tensor([0, 2]), NO_LABELS]
    (match,), _ = HungarianMatcher(num_points=64)(predictions, labels, segments)
    assert (0, 4, 1) in set(zip(*(part.tolist() for part in match), strict=True))


def test_images_without_targets_train() -> None:
    """A batch without any segment has a finite loss that reaches the masks too, with zero gradient."""
    predictions = make_predictions()
    losses, _ = make_criterion()(
        predictions, truths_of([NO_LABELS, NO_LABELS], torch.zeros(2, 1, 32, 32).int()), (32, 32)
    )
    total = torch.stack(list(losses.values())).sum()
    assert total.isfinite()
    total.backward()
    assert predictions[0].class_logits.grad is not None
    assert predictions[0].mask_logits.grad is not None
    assert not predictions[0].mask_logits.grad.any()


def test_costs_and_losses_are_their_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    """One query of logit x and class probability p, one segment t: cross-entropy, dice and class, weighed and added."""
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.full(shape, 0.5))  # all points in the middle
    x, p, points = 0.4, 0.7, 4
    prediction = Prediction(torch.tensor([[[p, 1 - p]]]).log(), torch.full((1, 1, 8, 8), x))
    matcher = HungarianMatcher(class_weight=2, mask_weight=3, dice_weight=7, num_points=points)
    criterion = SetCriterion(1, matcher, 2, 3, 7, num_points=points)
    s = 1 / (1 + math.exp(-x))
    for t in (1, 0):
        segments = torch.full((1, 1, 32, 32), t, dtype=torch.int32)  # where t is 0 the segment has no pixels
        mask = -math.log(s if t else 1 - s)
        dice = 1 - (2 * points * s * t + 1) / (points * s + points * t + 1)
        cost = matcher.cost(prediction, torch.tensor([[0]]), segments)
        assert cost.item() == pytest.approx(3 * mask + 7 * dice - 2 * p, rel=1e-5)
        losses, _ = criterion([prediction], truths_of([torch.tensor([0])], segments), (32, 32))
        values = {name.split("/")[0]: loss.item() for name, loss in losses.items()}
        assert values == pytest.approx({"class": -2 * math.log(p), "mask": 3 * mask, "dice": 7 * dice}, rel=1e-5)


def test_no_object_counts_a_tenth() -> None:
    """The class loss is a mean in which a query without a segment weighs a tenth of one with a segment."""
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]]])
    masks = torch.stack([torch.full((8, 8), value) for value in (9.0, -9.0, -9.0)])[None]
    truths = truths_of([torch.tensor([0])], torch.ones(1, 1, 32, 32).int())
    losses, _ = make_criterion(1)([Prediction(logits, masks)], truths, (32, 32))
    found, *nothing = -logits[0].log_softmax(-1)
    expected = (found[0] + 0.1 * sum(cost[1] for cost in nothing)) / 1.2
    torch.testing.assert_close(losses["class/layer0"], 2 * expected)


def test_more_segments_than_queries_still_match() -> None:
    """The cheapest segments are answered for; nothing breaks."""
    segments = torch.arange(16, dtype=torch.int32).repeat_interleave(2).repeat(32, 1)[None, None]
    (match, _), num_bad = HungarianMatcher(num_points=64)(make_predictions(1), [torch.arange(15) % 3], segments)
    assert len(match.query) == 6
    assert num_bad == 0


def test_costs_that_are_not_finite_are_counted() -> None:
    """A NaN mask spoils its column of costs; the count says how many, and there is an assignment all the same."""
    predictions = make_predictions(layers=1)
    with torch.no_grad():
        predictions[0].mask_logits[0, 3] = float("nan")
    (match,), num_bad = HungarianMatcher(num_points=64)(predictions, [torch.tensor([0, 2]), NO_LABELS], two_halves())
    assert num_bad == 2
    assert 3 not in match.query.tolist()


def test_a_perfect_answer_costs_next_to_nothing() -> None:
    """Sure and right queries: the class loss is zero, the others far below those of the opposite masks."""
    segments = two_halves()
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    classes = torch.full((2, 6, 4), -20.0)
    classes[..., 3] = 20
    masks = torch.full((2, 6, 32, 32), -20.0)
    for image, query, segment in ((0, 1, 0), (0, 5, 1), (1, 2, 0)):
        classes[image, query, 3], classes[image, query, labels[image][segment]] = -20, 20
        masks[image, query][segments[image, 0] == segment + 1] = 20
    truths = truths_of(labels, segments)
    losses, _ = make_criterion()([Prediction(classes, masks)], truths, (32, 32))
    opposite, _ = make_criterion()([Prediction(classes, -masks)], truths, (32, 32))
    assert losses["class/layer0"] < 1e-3
    for name in ("mask/layer0", "dice/layer0"):
        assert losses[name] < 0.5 * opposite[name]  # not zero, since on the very edge nobody is right


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_predictions_are_compared_in_float32(dtype: torch.dtype) -> None:
    """Logits in half precision give float32 losses."""
    predictions = [Prediction(p.class_logits.to(dtype), p.mask_logits.to(dtype)) for p in make_predictions()]
    truths = truths_of([torch.tensor([0, 2]), torch.tensor([1])], two_halves())
    losses, num_bad = make_criterion()(predictions, truths, (32, 32))
    assert num_bad == 0
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def test_smaller_maps_lie_at_the_top_left_of_the_batch() -> None:
    """Truths of their own sizes have the loss of those that were padded with void to the size of the batch."""
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    padded, cut = truths_of(labels, two_halves()), truths_of(labels, two_halves())
    padded[1].segments[:, 20:], padded[1].segments[:, :, 12:] = 0, 0
    cut[1] = cut[1]._replace(segments=padded[1].segments[:, :20, :12])
    found = []
    for truths in (padded, cut):
        torch.manual_seed(0)
        found.append(make_criterion()(make_predictions(), truths, (32, 32))[0])
    torch.testing.assert_close(*found, rtol=0, atol=0)
