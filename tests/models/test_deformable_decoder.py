"""The decoder of Deformable DETR and DINO, alone: from the encoder's levels to boxes."""

from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from src.models.box_prediction import BoxPrediction
from src.models.deformable_decoder import DeformableDecoder
from src.models.denoising import Denoising
from src.models.proposals import Memory, token_boxes
from src.models.queries import LearnedQueries, MixedQueries, ProposedQueries
from src.weights.layouts import to_ours
from tests.models import their_detectors as theirs

QUERIES = {"plain": LearnedQueries, "refined": LearnedQueries, "two_stage": ProposedQueries}
SIZES = [(2, 3), (4, 5), (7, 10), (14, 19)]


def make_ours(name: str) -> DeformableDecoder:
    queries = partial(QUERIES[name], num_queries=theirs.QUERIES)
    widths = {"num_layers": theirs.LAYERS, "dim_feedforward": theirs.FEEDFORWARD}
    return DeformableDecoder(theirs.CLASSES, queries, theirs.DIM, refine=name != "plain", **widths).eval()


@pytest.fixture(scope="module", params=QUERIES)
def pair(request: pytest.FixtureRequest):
    """Their model and our decoder with its weights."""
    model, ours = theirs.make_deformable(request.param), make_ours(request.param)
    state = to_ours(model.state_dict(), "deformable_detr")
    ours.load_state_dict({n.removeprefix("decoder."): v for n, v in state.items() if n.startswith("decoder.")})
    return model, ours


@pytest.mark.parametrize("images", theirs.BATCHES.values(), ids=theirs.BATCHES.keys())
@torch.no_grad()
def test_all_layers_agree_with_transformers(pair, images: theirs.Images) -> None:
    """From the memory of their encoder, and what is inside of each image; proposals as well."""
    model, ours = pair
    expected = theirs.run_deformable(model, images)
    sizes = expected.read["spatial_shapes_list"]
    lengths = [height * width for height, width in sizes]

    def levels_of(tokens: Tensor) -> list[Tensor]:
        """Ours, coarsest first, of their tokens (B, S, ...), finest first."""
        return [part.unflatten(1, size) for part, size in zip(tokens.split(lengths, 1), sizes, strict=True)][::-1]

    levels = [level.permute(0, 3, 1, 2) for level in levels_of(expected.read["encoder_hidden_states"])]
    inside = levels_of(expected.read["encoder_attention_mask"])
    *proposals, first, second, last = ours(levels, [], inside)
    theirs.agree([first, second, last], expected.predictions)
    assert len(proposals) == isinstance(ours.queries, ProposedQueries)
    for proposal in proposals:
        model.config.auxiliary_loss = False
        output = model.model(pixel_values=images.pixels, pixel_mask=images.mask)
        logits = torch.cat([level.flatten(1, 2) for level in levels_of(output.enc_outputs_class)], 1)
        boxes = torch.cat([level.flatten(1, 2) for level in levels_of(output.enc_outputs_coord_logits)], 1)
        assert proposal.classless
        torch.testing.assert_close(proposal.class_logits, logits, atol=1e-4, rtol=0)
        torch.testing.assert_close(proposal.boxes, boxes.sigmoid(), atol=1e-4, rtol=0)


class Truth(NamedTuple):
    """As the data's, of an image of 40 x 80 pixels."""

    labels: Tensor
    corners: Tensor
    segments: Tensor = torch.zeros(1, 40, 80)

    def boxes(self) -> Tensor:
        return self.corners


TRUTHS = [
    Truth(torch.tensor([1, 4]), torch.tensor([[0.0, 0, 40, 20], [20, 10, 60, 30]])),
    Truth(torch.tensor([2]), torch.tensor([[8.0, 4, 16, 12]])),
]
EMPTY = Truth(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))


def make_dino(num_noisy: int = 6, **settings: object) -> DeformableDecoder:
    """With DINO's three additions, perturbed so that no head starts at zero."""
    torch.manual_seed(0)
    parts = {"queries": partial(MixedQueries, num_queries=7), "denoising": partial(Denoising, num_queries=num_noisy)}
    values = {"dim": 32, "num_layers": 3, "dim_feedforward": 48, "refine": True, "look_forward_twice": True}
    model = DeformableDecoder(5, **{**parts, **values, **settings})  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def random_levels(num_images: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(num_images, 32, *size, generator=generator) for size in SIZES]


def changed(one: BoxPrediction, other: BoxPrediction) -> Tensor:
    """Which queries predict something else, (Q,)."""
    classes = (one.class_logits - other.class_logits).abs().amax((0, 2))
    return torch.maximum(classes, (one.boxes - other.boxes).abs().amax((0, 2))) > 1e-5


@pytest.mark.parametrize("group", [0, 1, 2])
def test_a_denoising_group_is_seen_by_itself_alone(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other noise in one of three groups moves all of its predictions, and none of other groups or matched queries."""
    model, levels = make_dino(), random_levels()
    torch.manual_seed(3)
    before = model(levels, [], truths=TRUTHS)
    make = Denoising.forward

    def disturbed(self: Denoising, truths):
        noised = make(self, truths)
        other = (noised.group == group)[:, None]
        return noised._replace(content=noised.content + other, boxes=torch.where(other, 0.3, noised.boxes))

    monkeypatch.setattr(Denoising, "forward", disturbed)
    torch.manual_seed(3)
    after = model(levels, [], truths=TRUTHS)
    assert len(before) == len(after) == 7
    groups = torch.arange(3).repeat_interleave(4)
    for one, other in zip(before[1:4], after[1:4], strict=True):  # noisy queries, after each layer
        assert torch.equal(changed(one, other), groups == group)
    for one, other in zip(before[4:], after[4:], strict=True):
        assert not changed(one, other).any()


def test_matched_queries_are_those_without_denoising() -> None:
    """What they predict in training is what they predict at inference."""
    model, levels = make_dino(), random_levels()
    trained = model(levels, [], truths=TRUTHS)
    model.eval()
    alone = model(levels, [])
    assert len(alone) == 4
    for one, other in zip([trained[0], *trained[4:]], alone, strict=True):
        assert not changed(one, other).any()


@pytest.mark.parametrize(
    ("training", "truths", "last_only"), [(False, TRUTHS, False), (True, None, False), (True, TRUTHS, True)]
)
def test_noise_needs_training_and_truth(training: bool, truths: list[Truth] | None, last_only: bool) -> None:
    """At inference, without truths, and where the last prediction alone is wanted, no prediction has known pairs."""
    predictions = make_dino().train(training)(random_levels(), [], last_only=last_only, truths=truths)
    assert len(predictions) == (1 if last_only else 4)
    assert all(prediction.match is None for prediction in predictions)


def test_pairs_are_the_near_copies_of_each_object() -> None:
    """In each of three groups, the first of two copies of each object; without noise, copies are the objects."""
    noised = make_dino().denoising(TRUTHS)  # type: ignore[misc]
    assert noised.boxes.shape == (2, 12, 4)
    image, query, segment = noised.pairs
    found = set(zip(image.tolist(), query.tolist(), segment.tolist(), strict=True))
    assert found == {(0, 4 * g + n, n) for g in range(3) for n in range(2)} | {(1, 4 * g, 0) for g in range(3)}
    quiet = Denoising(5, 8, 6, label_noise=0.0, box_noise=0.0)
    noised = quiet(TRUTHS)
    expected = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
    torch.testing.assert_close(noised.boxes[0], expected.repeat(6, 1))
    assert torch.equal(noised.content[0], quiet.label_embed(torch.tensor([1, 4])).repeat(6, 1))


def test_near_copies_are_nearer_than_far_ones() -> None:
    """A near corner moves by less than half a side, a far one by half a side to a whole one."""
    torch.manual_seed(0)
    denoising = Denoising(5, 8, 300)
    truth = Truth(torch.tensor([0]), torch.tensor([[36.0, 16, 44, 24]]))  # far enough from every edge
    centre, size = denoising([truth]).boxes[0].unflatten(0, (300, 2)).chunk(2, -1)
    wanted = torch.tensor([0.45, 0.4, 0.55, 0.6])
    first = torch.minimum(centre - size / 2, centre + size / 2)
    moved = (first[:, 0] - wanted[:2]).abs() / torch.tensor([0.05, 0.1])
    assert moved.max() <= 1 + 1e-5
    corner = (centre - size / 2)[:, 1]
    moved = (corner - wanted[:2]).abs() / torch.tensor([0.05, 0.1])
    assert moved.min() >= 1 - 1e-5
    assert moved.max() <= 2 + 1e-5


def test_half_of_the_label_noise_is_replaced_labels() -> None:
    """A quarter of the labels is drawn anew with a noise of 0.5; queries without object keep their own label."""
    torch.manual_seed(0)
    labels = Denoising(1000, 8).noisy_labels(torch.tensor([3]).expand(20000))
    assert 0.23 < float((labels != 3).float().mean()) < 0.27
    nothing = Denoising(5, 8, label_noise=2.0).noisy_labels(torch.full((100,), 5))
    assert (nothing == 5).all()


def test_images_without_objects_train_every_weight() -> None:
    """A batch without objects has noisy queries without pairs, and gradients for all parameters (DDP needs them)."""
    model = make_dino()
    predictions = model(random_levels(), [], truths=[EMPTY, EMPTY])
    assert len(predictions[1].match.image) == 0  # type: ignore[union-attr]
    sum(p.class_logits.sum() + p.boxes.sum() for p in predictions).backward()  # type: ignore[union-attr]
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("twice", [False, True])
def test_boxes_train_the_layer_before_if_it_looks_forward_twice(twice: bool) -> None:
    """Otherwise the boxes of a layer train its own head alone."""
    model = make_dino(look_forward_twice=twice, denoising=None)
    boxes = model(random_levels(), [])[-1].boxes
    heads = [next(model.box_heads[i].parameters()) for i in range(3)]
    first, second, third = torch.autograd.grad(boxes.sum(), heads, allow_unused=True)
    assert first is None
    assert (second is not None) == twice
    assert third is not None


@pytest.mark.parametrize("queries", [LearnedQueries, ProposedQueries, MixedQueries])
@pytest.mark.parametrize("refine", [False, True])
def test_last_only_is_the_last_of_all(queries: type, refine: bool) -> None:
    """Whatever comes before it."""
    model = make_dino(queries=partial(queries, num_queries=7), refine=refine, denoising=None).eval()
    (last,) = model(random_levels(), [], last_only=True)
    assert not changed(last, model(random_levels(), [])[-1]).any()


def test_shared_heads_are_equal_heads() -> None:
    """One pair for all layers predicts what as many equal ones do; proposals have another pair."""
    shared, own = make_dino(share_heads=True).eval(), make_dino().eval()
    state = shared.state_dict()
    for part in ("class_heads", "box_heads"):
        assert (len(getattr(shared, part)), len(getattr(own, part))) == (2, 4)
        first, last = ({n: v for n, v in state.items() if n.startswith(f"{part}.{i}.")} for i in (0, 1))
        state |= {n.replace(".0.", f".{i}.", 1): v for n, v in first.items() for i in range(3)}
        state |= {n.replace(".1.", ".3.", 1): v for n, v in last.items()}
    own.load_state_dict(state)
    for one, other in zip(shared(random_levels(), []), own(random_levels(), []), strict=True):
        assert not changed(one, other).any()


@pytest.mark.parametrize("queries", [LearnedQueries, ProposedQueries, MixedQueries])
def test_padding_does_not_matter(queries: type) -> None:
    """An image predicts the same boxes, in 0..1 of itself, whatever is beside and below it."""
    model = make_dino(queries=partial(queries, num_queries=7), denoising=None).eval()
    levels = random_levels(1)
    padded = [torch.nn.functional.pad(level, (0, level.shape[-1], 0, 2), value=9.0) for level in levels]
    inside = [torch.zeros(1, *level.shape[-2:], dtype=torch.bool) for level in padded]
    for mask, (height, width) in zip(inside, SIZES, strict=True):
        mask[:, :height, :width] = True
    assert not changed(model(levels, [])[-1], model(padded, [], inside)[-1]).any()


def test_proposals_stand_where_tokens_are() -> None:
    """The last token of a level proposes the square at the image's last corner; sides double from level to level."""
    memory = Memory.of(random_levels(1), None)
    ends = torch.tensor([height * width for height, width in SIZES]).cumsum(0) - 1

    boxes = token_boxes(memory)[0, ends]
    expected = torch.tensor(
        [[1 - 0.5 / w, 1 - 0.5 / h, side, side] for (h, w), side in zip(SIZES, (0.4, 0.2, 0.1, 0.05), strict=True)]
    )
    torch.testing.assert_close(boxes, expected)


def test_fewer_tokens_than_queries_give_fewer_predictions() -> None:
    """A small image has as many proposals as tokens."""
    model = make_dino(queries=partial(MixedQueries, num_queries=900), denoising=None).eval()
    tokens = sum(height * width for height, width in SIZES)
    assert model(random_levels(), [], last_only=True)[0].boxes.shape == (2, tokens, 4)


def test_denoising_needs_positions_that_follow_boxes() -> None:
    """Learned positions are refused in one line."""
    with pytest.raises(ValueError, match="denoising with queries=LearnedQueries: expected MixedQueries"):
        make_dino(queries=partial(LearnedQueries, num_queries=7))


@pytest.mark.parametrize("queries", [LearnedQueries, ProposedQueries, MixedQueries])
def test_boxes_stay_exact_in_mixed_precision(queries: type) -> None:
    """In float32: eight bits would be steps of a two hundredth of the image."""
    model = make_dino(queries=partial(queries, num_queries=7), denoising=None)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = model(random_levels(), [])
    assert {prediction.boxes.dtype for prediction in predictions} == {torch.float32}


@pytest.mark.parametrize("queries", [LearnedQueries, ProposedQueries, MixedQueries])
def test_shapes_need_no_numbers(queries: type) -> None:
    """A model on the meta device, which costs are counted on, runs as well with padding as without."""
    model = make_dino(queries=partial(queries, num_queries=7), denoising=None).eval().to("meta")
    levels = [level.to("meta") for level in random_levels()]
    inside = [level[:, 0].bool() for level in levels]
    for mask in (None, inside):
        assert model(levels, [], mask, last_only=True)[0].boxes.shape == (2, 7, 4)
