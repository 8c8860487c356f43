"""The loss of a single image as a measure of its prediction."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from src.data.targets import Truth
from src.losses.criterion import SetCriterion
from src.losses.matcher import HungarianMatcher
from src.models.postprocess import Frame
from src.models.transformer_decoder import Prediction

LABELS = torch.tensor([2, 0, 1])
FRAME = Frame((64, 64), (64, 64), (128, 128))


def make_criterion(**weights: float) -> SetCriterion:
    return SetCriterion(3, HungarianMatcher(), **weights)


def three_segments() -> Tensor:
    """An image (1, 128, 128) with three rectangles."""
    segments = torch.zeros(1, 128, 128, dtype=torch.int32)
    segments[0, :48], segments[0, 48:, :64], segments[0, 80:, 80:] = 1, 2, 3
    return segments


def right_answer() -> tuple[Tensor, Tensor]:
    """Six queries, of which 4, 1 and 3 stand for the segments: sure of class and mask."""
    classes, masks = torch.full((6, 4), -10.0), torch.full((6, 16, 16), -10.0)
    classes[:, 3] = 10
    coarse = three_segments()[0, 4::8, 4::8]
    for segment, query in enumerate((4, 1, 3)):
        classes[query, 3], classes[query, LABELS[segment]] = -10, 10
        masks[query][coarse == segment + 1] = 10
    return classes, masks


def loss(classes: Tensor, masks: Tensor, frame: Frame = FRAME, **weights: float) -> float:
    return loss_of(make_criterion(**weights), classes, masks, frame, three_segments(), LABELS)


def loss_of(
    criterion: SetCriterion, classes: Tensor, masks: Tensor, frame: Frame, segments: Tensor, labels: Tensor
) -> float:
    """The loss of an image that is the second of its batch."""
    truth = Truth(segments, labels, torch.zeros(len(labels), dtype=torch.bool), torch.ones(len(labels)))
    prediction = Prediction(*(torch.stack([-logits, logits]) for logits in (classes, masks)))
    return criterion.image_loss(prediction, 1, frame, truth)


def test_the_right_answer_has_the_least_loss() -> None:
    """Next to nothing; wrong classes, shifted or uncertain masks, and answers that are missing cost more."""
    classes, masks = right_answer()
    right = loss(classes, masks)
    assert 0 <= right < 0.01
    worse = {
        "class": (classes.roll(1, 1), masks),
        "place": (classes, masks.roll(2, 2)),
        "doubt": (classes / 10, masks / 10),
        "missing": (classes.where(torch.arange(6)[:, None] != 4, classes[0]), masks),
    }
    assert all(loss(*answer) > right + 0.1 for answer in worse.values())


def test_a_little_better_is_a_little_less_loss() -> None:
    """Masks that come closer to the right ones lower the loss at every step, where PQ would jump once."""
    classes, masks = right_answer()
    losses = [loss(classes, share * masks + (1 - share) * masks.roll(2, 2)) for share in torch.linspace(0, 1, 11)]
    assert losses == sorted(losses, reverse=True)
    assert max(a - b for a, b in pairwise(losses)) < 0.5 * (losses[0] - losses[-1])


def test_nothing_is_random() -> None:
    """Whatever the seed, the loss is the same to the bit, and no random number is drawn."""
    torch.manual_seed(0)
    classes, masks = torch.randn(6, 4), torch.randn(6, 16, 16)
    state = torch.get_rng_state()
    first = loss(classes, masks)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert loss(classes, masks) == first


def test_padding_does_not_count() -> None:
    """An image in the corner of a larger batch has the loss that it has alone, whatever lies beside it."""
    torch.manual_seed(0)
    classes, masks = torch.randn(6, 4), torch.randn(6, 16, 16)
    padded = torch.randn(6, 24, 32)
    padded[:, :16, :16] = masks
    wide = loss(classes, padded, Frame((96, 128), (64, 64), (128, 128)))
    assert wide == pytest.approx(loss(classes, masks), rel=1e-5)


def test_images_with_few_and_with_many_segments_compare() -> None:
    """Masks that know nothing cost log 2 a segment, averaged over segments."""
    weights = {"class_weight": 0.0, "dice_weight": 0.0}
    assert loss(torch.zeros(6, 4), torch.zeros(6, 16, 16), **weights) == pytest.approx(5 * math.log(2))
    one = loss_of(
        make_criterion(**weights), torch.zeros(6, 4), torch.zeros(6, 16, 16), FRAME, three_segments(), LABELS[:1]
    )
    assert one == pytest.approx(5 * math.log(2))


def test_it_is_the_loss_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all points see the same values, it is the sum of the criterion's three parts."""
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.full(shape, 0.5))  # all points in the middle
    torch.manual_seed(0)
    classes, masks = torch.randn(4, 4), torch.randn(4, 1, 1).expand(-1, 16, 16).contiguous()
    segments, labels = torch.ones(1, 64, 64, dtype=torch.int32), torch.tensor([1])
    truth = Truth(segments, labels, torch.tensor([False]), torch.tensor([4096.0]))
    criterion = make_criterion()
    criterion.num_points = criterion.matcher.num_points = 256  # as many as the mask has pixels: dice depends on it
    losses, _ = criterion([Prediction(classes[None], masks[None])], [truth], (64, 64))
    found = loss_of(criterion, classes, masks, Frame((64, 64), (64, 64), (64, 64)), segments, labels)
    assert found == pytest.approx(sum(value.item() for value in losses.values()), rel=1e-4)


def test_more_segments_than_queries_have_a_loss() -> None:
    """Those that are left over cost nothing, at every exit alike."""
    assert loss(torch.zeros(2, 4), torch.zeros(2, 16, 16)) > 0


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    """It would pass for an image without annotations."""
    with pytest.raises(FloatingPointError, match="loss of an image is nan"):
        loss(torch.full((6, 4), float("nan")), torch.zeros(6, 16, 16))
