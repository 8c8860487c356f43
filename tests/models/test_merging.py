"""Several views of one image as one answer."""

import pytest
import torch

from src.models.merging import Objects, View, match, merge_views
from src.models.postprocess import Frame, Postprocess
from src.models.transformer_decoder import Prediction
from tests.models.test_postprocess import box

SIZE = (32, 32)
POST = Postprocess([True, False])


def view(entries: list[tuple[int, float, torch.Tensor]], mirrored: bool = False) -> View:
    """Queries given as (class, score, mask (8, 8) bool), the rest of the score nobody's."""
    scores = torch.full((len(entries), 3), 1e-6)
    for query, (label, score, _) in enumerate(entries):
        scores[query, label], scores[query, 2] = score, 1 - score
    masks = torch.stack([20.0 * mask - 10 for *_, mask in entries])
    return View(Prediction(scores.log()[None], masks[None]), SIZE, SIZE, mirrored)


def answered(*pairs: list[View]) -> tuple[Prediction, Frame]:
    return merge_views(pairs, SIZE)


LEFT, RIGHT = (0, 0.9, box(0, 0, 4, 3)), (0, 0.9, box(2, 5, 6, 8))


def test_a_single_view_is_left_as_it_is() -> None:
    """Bit for bit, in its own frame."""
    one = view([LEFT, RIGHT])
    prediction, frame = answered([one])
    assert torch.equal(prediction.class_logits, one.prediction.class_logits)
    assert torch.equal(prediction.mask_logits, one.prediction.mask_logits)
    assert frame == Frame(SIZE, SIZE, SIZE)


def test_the_order_of_queries_does_not_matter() -> None:
    """Views that show the same objects in another order are one answer, with the scores of one."""
    once = answered([view([LEFT, RIGHT])])
    twice = answered([view([LEFT, RIGHT])], [view([RIGHT, LEFT])])
    assert len(twice[0].class_logits[0]) == 2
    for made in (POST.panoptic, POST.instances):
        torch.testing.assert_close(tuple(made(twice[0], 0, twice[1])), tuple(made(once[0], 0, once[1])))


def test_what_one_of_two_views_shows_counts_half() -> None:
    """It keeps its mask and half its score; what both show keeps all of it."""
    prediction, frame = answered([view([LEFT, RIGHT])], [view([LEFT])])
    scores = prediction.class_logits[0].softmax(-1)[:, 0]
    assert scores.tolist() == pytest.approx([0.9, 0.45], abs=1e-3)
    instances = POST.instances(prediction, 0, frame)
    assert [int(mask.sum()) for mask in instances.masks[instances.scores > 0.4]] == pytest.approx([192, 192], abs=4)


@pytest.mark.parametrize("mask", [box(0, 0, 4, 1), RIGHT[2]])
def test_objects_of_other_places_stay_apart(mask: torch.Tensor) -> None:
    """With too little in common, or nothing."""
    prediction, _ = answered([view([LEFT])], [view([(0, 0.9, mask)])])
    assert len(prediction.class_logits[0]) == 2


def test_views_that_differ_on_the_class_share_it_out() -> None:
    """One object with the mean of both opinions."""
    prediction, _ = answered([view([LEFT])], [view([(1, 0.7, LEFT[2])])])
    assert prediction.class_logits[0].softmax(-1).tolist() == [pytest.approx([0.45, 0.35, 0.2], abs=1e-3)]


def test_a_sure_query_is_not_matched_with_a_doubtful_double() -> None:
    """Of two that cover the same object, the one that agrees on what it is."""
    mask = LEFT[2].float().flatten()[None].expand(2, -1).unflatten(1, (8, 8)) - 0.5
    some = Objects(torch.tensor([[0.9, 0.0]]), mask[:1], torch.ones(1))
    others = Objects(torch.tensor([[0.02, 0.0], [0.8, 0.0]]), mask, torch.ones(2))
    assert [places.tolist() for places in match(some, others)] == [[0], [1]]


def test_masks_are_averaged_as_logits() -> None:
    """Before anything is decided: a pixel is inside where the mean of the logits is."""
    wide, narrow = view([(0, 0.9, box(0, 0, 4, 6))]), view([(0, 0.9, box(0, 0, 4, 4))])
    first, second = wide.prediction.mask_logits * 2, narrow.prediction.mask_logits
    wide = wide._replace(prediction=wide.prediction._replace(mask_logits=first))
    prediction, _ = answered([wide], [narrow])
    torch.testing.assert_close(prediction.mask_logits, (first + second) / 2)


def test_mirrored_views_of_any_size_lie_where_the_image_does() -> None:
    """Their padding cut off first, which is at the right of what was mirrored."""
    logits = torch.full((1, 8, 16), -10.0)
    logits[0, 2:6, 9:12] = 10  # of 12 columns, the rest is padding: columns 0 to 3 of the image
    class_logits, _ = view([LEFT]).prediction
    mirrored = View(Prediction(class_logits, logits[None]), (32, 64), (32, 48), True)
    unmirrored = torch.cat([logits[..., :12].flip(-1), logits[..., 12:]], -1)
    plain = mirrored._replace(prediction=Prediction(class_logits, unmirrored[None]), mirrored=False)
    prediction, frame = merge_views([[plain, mirrored]], (32, 48))
    assert len(prediction.mask_logits[0]) == 1
    torch.testing.assert_close(prediction.mask_logits[0], unmirrored[..., :12])
    assert frame == Frame((32, 48), (32, 48), (32, 48))
