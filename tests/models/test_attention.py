"""Deformable attention from the three forms of places that it takes, and where images do not fill the levels."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from src.models.attention import DeformableAttention

DIM, HEADS, LEVELS, POINTS = 16, 2, 2, 3
SIZES = [(2, 3), (4, 6)]
NUM_TOKENS = sum(h * w for h, w in SIZES)
every_form = pytest.mark.parametrize("sampling", ["grid", "rows"])


def make_attention(sampling: str = "grid") -> DeformableAttention:
    torch.manual_seed(0)
    attention = DeformableAttention(DIM, LEVELS, HEADS, POINTS, sampling)
    with torch.no_grad():  # attention that looks somewhere, and not everywhere alike
        for parameter in attention.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return attention.eval()


def make_inputs(num_queries: int = 5) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, num_queries, DIM), torch.randn(2, NUM_TOKENS, DIM)


@every_form
@torch.no_grad()
def test_a_place_may_be_given_for_each_image_and_level(sampling: str) -> None:
    """The same place everywhere is what one place for all images and levels is; another one changes its query alone."""
    attention, (query, value) = make_attention(sampling), make_inputs()
    reference = torch.rand(5, 2)
    everywhere = reference[None, :, None].repeat(2, 1, LEVELS, 1)
    expected = attention(query, value, reference, SIZES)
    torch.testing.assert_close(attention(query, value, everywhere, SIZES), expected)
    torch.testing.assert_close(attention(query, value, everywhere[:, :, :1], SIZES), expected)  # one for all levels
    everywhere[1, 3, 1, 0] += 0.1
    moved = (attention(query, value, everywhere, SIZES) != expected).any(-1)
    assert moved.nonzero().tolist() == [[1, 3]]


@every_form
@torch.no_grad()
def test_a_box_scales_the_offsets(sampling: str) -> None:
    """An offset of as many as there are points reaches the edge of the box: by hand, a query at a time."""
    attention, (query, value) = make_attention(sampling), make_inputs()
    boxes = torch.rand(2, 5, LEVELS, 4)
    found = attention(query, value, boxes, SIZES)
    offsets = attention.sampling_offsets(query).view(2, 5, HEADS, LEVELS, POINTS, 2)
    sizes = torch.tensor([(w, h) for h, w in SIZES])
    for image, one in ((0, 2), (1, 4)):
        box = boxes[image, one]
        reach = offsets[image, one] / POINTS * box[:, None, 2:] / 2 * sizes[:, None]  # in pixels, (M, L, P, 2)
        by_hand = make_attention(sampling)
        by_hand.sampling_offsets.weight.zero_()
        by_hand.sampling_offsets.bias.copy_(reach.flatten())
        expected = by_hand(query[image, one][None, None], value[image, None], box[None, None, :, :2], SIZES)
        torch.testing.assert_close(found[image, one], expected[0, 0], atol=1e-5, rtol=1e-5)


@every_form
@torch.no_grad()
def test_what_lies_outside_of_an_image_counts_as_zero(sampling: str) -> None:
    """Not as a token of zeros, whose value would be the bias: whatever is there, nothing of it arrives."""
    attention, (query, value) = make_attention(sampling), make_inputs()
    inside = torch.ones(2, NUM_TOKENS, dtype=torch.bool)
    reference = torch.rand(5, 2)
    assert torch.equal(attention(query, value, reference, SIZES, inside), attention(query, value, reference, SIZES))
    inside[1, ::2] = False
    found = attention(query, value, reference, SIZES, inside)
    assert torch.equal(found[0], attention(query, value, reference, SIZES)[0])
    value[1, ::2] = 100.0
    assert torch.equal(attention(query, value, reference, SIZES, inside), found)
    nothing = attention(query, value, reference, SIZES, torch.zeros_like(inside))
    torch.testing.assert_close(nothing, attention.output_proj.bias.expand(2, 5, -1))


def theirs_of(attention: DeformableAttention) -> torch.nn.Module:
    """The module of `transformers` with these weights."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.deformable_detr import modeling_deformable_detr as modeling

    config = transformers.DeformableDetrConfig(d_model=DIM, num_feature_levels=LEVELS)
    module = modeling.DeformableDetrMultiscaleDeformableAttention(config, HEADS, POINTS).eval()
    module.load_state_dict(attention.state_dict())
    return module


def starts(sizes: Sequence[tuple[int, int]]) -> Tensor:
    areas = torch.tensor([h * w for h, w in sizes])
    return torch.cat([areas.new_zeros(1), areas.cumsum(0)[:-1]])


@every_form
@pytest.mark.parametrize("width", [2, 4])
@torch.no_grad()
def test_transformers_agrees(sampling: str, width: int) -> None:
    """On points and on boxes, of different places on each level, with padding."""
    attention, (query, value) = make_attention(sampling), make_inputs()
    reference, inside = torch.rand(2, 5, LEVELS, width), torch.rand(2, NUM_TOKENS) > 0.3
    expected, _ = theirs_of(attention)(
        query,
        attention_mask=inside,
        encoder_hidden_states=value,
        reference_points=reference,
        spatial_shapes=torch.tensor(SIZES),
        spatial_shapes_list=SIZES,
        level_start_index=starts(SIZES),
    )
    torch.testing.assert_close(attention(query, value, reference, SIZES, inside), expected, atol=1e-5, rtol=1e-5)


@every_form
def test_boxes_learn(sampling: str) -> None:
    """Gradients arrive at centres and sizes, the same in every form of sampling."""
    query, value = make_inputs()
    gradients = []
    for form in ("grid", sampling):
        boxes = torch.full((2, 5, LEVELS, 4), 0.4).requires_grad_()
        make_attention(form)(query, value, boxes, SIZES).square().sum().backward()
        assert boxes.grad is not None
        assert bool(boxes.grad.flatten(0, 2).any(0).all())
        gradients.append(boxes.grad)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
