"""Matching and losses of boxes: their properties, and equality with the implementation of `transformers`."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou
from transformers.loss import loss_deformable_detr, loss_for_object_detection

from src.data.targets import Truth
from src.losses.box_criterion import BoxCriterion
from src.losses.box_matcher import BoxMatcher
from src.losses.boxes import generalized_iou
from src.models.box_prediction import BoxPrediction, Pairs
from src.models.boxes import boxes_in_image
from src.models.postprocess import Frame

CLASSES, SIZE = 5, (40, 80)
SOFTMAX, SIGMOID = CLASSES + 1, CLASSES  # columns of class logits
BOTH = pytest.mark.parametrize("columns", [SOFTMAX, SIGMOID], ids=["softmax", "sigmoid"])


def some_boxes(number: int, seed: int = 0) -> Tensor:
    """Boxes (number, 4) inside the image, centre and size in 0..1."""
    chance = torch.Generator().manual_seed(seed)
    size = 0.1 + 0.5 * torch.rand(number, 2, generator=chance)
    return torch.cat([size / 2 + (1 - size) * torch.rand(number, 2, generator=chance), size], 1)


def make_truth(labels: list[int], boxes: Tensor) -> Truth:
    height, width = SIZE
    pixels = box_convert(boxes, "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
    none = torch.zeros(len(labels))
    return Truth(torch.zeros(1, *SIZE, dtype=torch.int32), torch.tensor(labels).long(), none.bool(), none, pixels)


def make_truths() -> list[Truth]:
    """Three images: of three objects, none and two."""
    return [
        make_truth([0, 3, 3], some_boxes(3)),
        make_truth([], torch.zeros(0, 4)),
        make_truth([4, 1], some_boxes(2, 1)),
    ]


def make_predictions(columns: int, layers: int = 2, images: int = 3, queries: int = 7) -> list[BoxPrediction]:
    chance = torch.Generator().manual_seed(3)
    return [
        BoxPrediction(
            (2 * torch.randn(images, queries, columns, generator=chance)).requires_grad_(),
            some_boxes(images * queries, 10 + layer).view(images, queries, 4).requires_grad_(),
        )
        for layer in range(layers)
    ]


def make_criterion(**weights: float) -> BoxCriterion:
    return BoxCriterion(CLASSES, BoxMatcher(), **weights)


def values(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: loss.item() for name, loss in losses.items()}


def pairs(match: Pairs) -> set[tuple[int, ...]]:
    return {*zip(*(part.tolist() for part in match), strict=True)}


def test_generalized_iou_is_that_of_torchvision() -> None:
    """For every pair, apart or overlapping; it is 1 for a box with itself."""
    first, second = some_boxes(20), some_boxes(30, 1) * torch.tensor([1, 1, 0.3, 0.3])
    expected = generalized_box_iou(*(box_convert(boxes, "cxcywh", "xyxy") for boxes in (first, second)))
    assert (expected < 0).any()
    torch.testing.assert_close(generalized_iou(first[:, None], second), expected)
    torch.testing.assert_close(generalized_iou(first, first), torch.ones(20))


def test_boxes_are_relative_to_their_own_image() -> None:
    """A truth's boxes in pixels come back as centre and size in 0..1 of its map."""
    torch.testing.assert_close(boxes_in_image(make_truths()[0]), some_boxes(3))


@pytest.mark.parametrize(
    ("columns", "loss", "class_weight"),
    [
        (SOFTMAX, loss_for_object_detection.ForObjectDetectionLoss, 1.0),
        (SIGMOID, loss_deformable_detr.DeformableDetrForObjectDetectionLoss, 2.0),
    ],
    ids=["softmax", "sigmoid"],
)
def test_matching_and_losses_agree_with_transformers(columns: int, loss, class_weight: float, monkeypatch) -> None:
    """The same pairs and the same three losses at two layers, for three images of which one is empty."""
    predictions, truths = make_predictions(columns), make_truths()
    config = SimpleNamespace(
        class_cost=class_weight,
        bbox_cost=5,
        giou_cost=2,
        num_labels=CLASSES,
        eos_coefficient=0.1,
        focal_alpha=0.25,
        auxiliary_loss=True,
        decoder_layers=2,
        bbox_loss_coefficient=5,
        giou_loss_coefficient=2,
    )
    theirs = loss_deformable_detr.DeformableDetrHungarianMatcher if columns == SIGMOID else None
    theirs = theirs or loss_for_object_detection.HungarianMatcher
    matched, forward = [], theirs.forward

    def spy(*args):
        matched.append(forward(*args))
        return matched[-1]

    monkeypatch.setattr(theirs, "forward", spy)
    targets = [{"class_labels": truth.labels, "boxes": boxes_in_image(truth)} for truth in truths]
    logits, boxes = zip(*(prediction[:2] for prediction in predictions), strict=True)
    _, expected, _ = loss(logits[-1], targets, "cpu", boxes[-1], config, logits, boxes)

    matcher = BoxMatcher(class_weight)
    criterion = BoxCriterion(CLASSES, matcher)
    found, num_bad = criterion(predictions, truths, SIZE)
    assert num_bad == 0
    assert values(found) == pytest.approx(
        {
            f"{ours}/layer{layer}": weight * expected[f"{name}{end}"].item()
            for layer, end in ((0, "_0"), (1, ""))
            for ours, name, weight in (("class", "loss_ce", 1), ("box", "loss_bbox", 5), ("giou", "loss_giou", 2))
        },
        abs=1e-4,
    )
    labels = [truth.labels for truth in truths]
    ours, _ = matcher(predictions, labels, [boxes_in_image(truth) for truth in truths], CLASSES)
    their_pairs = [
        {(image, *pair) for image, (q, s) in enumerate(layer) for pair in zip(q.tolist(), s.tolist(), strict=True)}
        for layer in matched
    ]
    assert [pairs(match) for match in ours] == their_pairs[::-1]  # theirs has the last layer first


@BOTH
def test_a_perfect_answer_costs_nothing(columns: int) -> None:
    """Sure queries at the right places lose next to nothing; another class or place costs."""
    truths = make_truths()
    logits, boxes = torch.full((3, 7, columns), -20.0), torch.full((3, 7, 4), 0.5)
    if columns == SOFTMAX:
        logits[..., -1] = 20
    for image, truth in enumerate(truths):
        for query, (label, box) in enumerate(zip(truth.labels, boxes_in_image(truth), strict=True), 1):
            logits[image, query, -1], logits[image, query, label], boxes[image, query] = -20, 20, box
    assert all(
        loss < 1e-5 for loss in values(make_criterion()([BoxPrediction(logits, boxes)], truths, SIZE)[0]).values()
    )
    shifted, _ = make_criterion()([BoxPrediction(logits, boxes + 0.1)], truths, SIZE)
    assert shifted["box/layer0"].item() == pytest.approx(5 * 0.4, rel=1e-4)
    wrong, _ = make_criterion()([BoxPrediction(logits.roll(1, 2), boxes)], truths, SIZE)
    assert wrong["class/layer0"] > 0.1


@BOTH
def test_images_without_objects_train(columns: int) -> None:
    """A finite loss of classes that reaches the boxes too, with zero gradient."""
    predictions = make_predictions(columns)
    losses, num_bad = make_criterion()(predictions, 3 * [make_truth([], torch.zeros(0, 4))], SIZE)
    sum(losses.values()).backward()
    assert num_bad == 0
    assert all(loss.isfinite() for loss in losses.values())
    assert predictions[0].class_logits.grad.any()
    assert predictions[0].boxes.grad is not None
    assert not predictions[0].boxes.grad.any()


@BOTH
def test_costs_that_are_not_finite_are_counted(columns: int) -> None:
    """A NaN box has a bad cost for each object of its own image; there is an assignment all the same."""
    (prediction,), truths = make_predictions(columns, layers=1), make_truths()
    with torch.no_grad():
        prediction.boxes[0, 2] = prediction.boxes[2, 5] = float("nan")
    labels, boxes = [truth.labels for truth in truths], [boxes_in_image(truth) for truth in truths]
    (match,), num_bad = BoxMatcher()([prediction], labels, boxes, CLASSES)
    assert num_bad == 3 + 2
    assert len(match.query) == 5
    assert not {(0, 2), (2, 5)} & {(image, query) for image, query, _ in pairs(match)}


def test_logits_far_from_zero_have_finite_costs() -> None:
    """Where a probability rounds to 0 or 1, its logarithm would not be finite."""
    (prediction,), truths = make_predictions(SIGMOID, layers=1), make_truths()
    _, num_bad = make_criterion()([prediction._replace(class_logits=100 * prediction.class_logits)], truths, SIZE)
    assert num_bad == 0


@BOTH
def test_more_objects_than_queries_still_match(columns: int) -> None:
    """Every query answers for one of them."""
    (prediction,) = make_predictions(columns, layers=1, images=1, queries=2)
    truth = make_truth([0, 1, 2, 3], some_boxes(4))
    (match,), _ = BoxMatcher()([prediction], [truth.labels], [boxes_in_image(truth)], CLASSES)
    assert sorted(match.query.tolist()) == [0, 1]
    losses, _ = make_criterion()([prediction], [truth], SIZE)
    assert all(loss.isfinite() for loss in losses.values())


def test_proposals_have_no_class() -> None:
    """Proposals, of any number, are matched and compared as if every object were of class 0."""
    (proposals,), truths = make_predictions(SIGMOID, layers=1, queries=50), make_truths()
    of_class_0 = [truth._replace(labels=torch.zeros_like(truth.labels)) for truth in truths]
    last = make_predictions(SIGMOID, layers=1)
    found, _ = make_criterion()([proposals._replace(classless=True), *last], truths, SIZE)
    assert values(found).items() >= values(make_criterion()([proposals], of_class_0, SIZE)[0]).items()
    alone, _ = make_criterion()(last, truths, SIZE)
    assert [values(found)[f"{name}/layer1"] for name in ("class", "box", "giou")] == [*values(alone).values()]


@BOTH
def test_denoised_queries_answer_for_the_objects_they_came_from(columns: int) -> None:
    """Known pairs are kept, however dear; objects of several groups lose what one group of them would."""
    truths = make_truths()[:1]
    one = torch.tensor([2, 0, 1]), torch.tensor([0, 1, 2])  # queries and their objects
    chance = torch.Generator().manual_seed(0)
    logits, boxes = torch.randn(1, 3, columns, generator=chance), some_boxes(3, 5)[None]
    query, segment = one[0], one[1]
    group = BoxPrediction(logits, boxes, Pairs(torch.zeros(3).long(), query, segment))
    twice = Pairs(torch.zeros(6).long(), torch.cat([query, query + 3]), segment.repeat(2))
    groups = BoxPrediction(logits.repeat(1, 2, 1), boxes.repeat(1, 2, 1), twice)
    single, _ = make_criterion()([group], truths, SIZE)
    double, _ = make_criterion()([groups], truths, SIZE)
    assert values(double) == pytest.approx(values(single), rel=1e-5)
    distance = (boxes[0, query] - boxes_in_image(truths[0])[segment]).abs().sum() / 3
    assert single["box/layer0"].item() == pytest.approx(5 * distance.item(), rel=1e-5)
    matched, _ = make_criterion()([group._replace(match=None)], truths, SIZE)
    assert matched["box/layer0"] < single["box/layer0"]


def test_no_object_counts_a_tenth() -> None:
    """The cross-entropy is a mean in which a query without an object weighs a tenth of one with an object."""
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]]])
    box = some_boxes(1)
    truth = make_truth([0], box)
    boxes = torch.stack([box, torch.ones(1, 4), torch.ones(1, 4)], 1)
    losses, _ = BoxCriterion(1, BoxMatcher())([BoxPrediction(logits, boxes)], [truth], SIZE)
    found, *nothing = -logits[0].log_softmax(-1)
    torch.testing.assert_close(losses["class/layer0"], (found[0] + 0.1 * sum(cost[1] for cost in nothing)) / 1.2)


@BOTH
def test_the_loss_of_an_image_is_that_of_training(columns: int) -> None:
    """For a batch of one image it is the sum of the three parts; other images and the padding do not matter."""
    (prediction,), truths = make_predictions(columns, layers=1), make_truths()
    criterion = make_criterion()
    for row in (0, 2):
        alone = BoxPrediction(*(part[row][None] for part in prediction[:2]))
        losses, _ = criterion([alone], [truths[row]], SIZE)
        frame = Frame((96, 96), SIZE, SIZE)
        found = criterion.image_loss(prediction, row, frame, truths[row])
        assert found == pytest.approx(sum(values(losses).values()), rel=1e-5)


def test_a_loss_of_an_image_that_is_not_finite_is_an_error() -> None:
    """It would pass for an image without annotations."""
    (prediction,) = make_predictions(SOFTMAX, layers=1)
    broken = prediction._replace(boxes=prediction.boxes * float("nan"))
    with pytest.raises(FloatingPointError, match="loss of an image is nan"):
        make_criterion().image_loss(broken, 0, Frame(SIZE, SIZE, SIZE), make_truths()[0])


def test_boxes_have_no_distillation() -> None:
    """A detector asked for it says so in one line."""
    with pytest.raises(ValueError, match=r"task.distil: BoxCriterion has no distillation, expected task.distil=0"):
        make_criterion().distillation()


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_predictions_are_compared_in_float32(dtype: torch.dtype, columns: int) -> None:
    """Predictions in half precision give float32 losses."""
    halves = [BoxPrediction(p.class_logits.to(dtype), p.boxes.to(dtype)) for p in make_predictions(columns)]
    losses, num_bad = make_criterion()(halves, make_truths(), SIZE)
    assert num_bad == 0
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def test_a_class_loss_knows_its_formula() -> None:
    """Probability p has alpha (1 - p)^2 log(1 / p) for its object's class, else (1 - alpha) p^2 log(1 / (1 - p))."""
    logit, box = 0.4, some_boxes(1)
    p = 1 / (1 + math.exp(-logit))
    prediction = BoxPrediction(torch.full((1, 1, 2), logit), box[None])
    losses, _ = BoxCriterion(2, BoxMatcher(), class_weight=2)([prediction], [make_truth([1], box)], SIZE)
    expected = -0.25 * (1 - p) ** 2 * math.log(p) - 0.75 * p**2 * math.log(1 - p)
    assert losses["class/layer0"].item() == pytest.approx(2 * expected, rel=1e-5)
