"""The whole model, where images leave the encoder one by one."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from src.config.build import build_run
from src.models.gate import Gate, Seen, gate_inputs, input_widths
from src.models.mask2former import Mask2Former
from tests.helpers import SMALL_MODEL, TINY_SHAPES


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.linspace(0.2, 3, 8)[:, None, None, None] * torch.randn(8, 3, 64, 96)


@pytest.fixture
def model(images: Tensor, configure: Callable[..., DictConfig]) -> Mask2Former:
    """Small, with random weights, and a gate that tells the images apart and sends them to several exits.

    Two of 64 channels share a group norm: with one channel to a group, the mean over tokens would be that of the norm.
    """
    settings = ["+experiment=eco_parent_shapes", "model/gate=linear", *TINY_SHAPES, *SMALL_MODEL, "dim=64"]
    model = build_run(configure(*settings, "callbacks=[]")).task.model.eval()
    assert isinstance(model.gate, Gate)
    with torch.no_grad():
        torch.nn.init.xavier_uniform_(model.gate.head.weight)
        seen, _ = model.pixel_decoder.look_and_encode(model.backbone(images), [], 0)
        (pooled,) = gate_inputs(seen, ["mean32"]).values()
        model.gate.absorb(pooled.mean(0), pooled.std(0))
    return model


def test_a_gated_batch_is_eight_single_runs(model: Mask2Former, images: Tensor) -> None:
    """Exits are equal and logits within 1e-5, though exits are mixed."""
    with torch.no_grad():
        prediction, depths = model.leave(images)
        assert len(set(depths)) > 2
        for image, depth in enumerate(depths):
            single, (alone,) = model.leave(images[image : image + 1])
            assert alone == depth
            for ours, expected in zip(prediction, single, strict=True):
                torch.testing.assert_close(ours[image : image + 1], expected, atol=1e-5, rtol=1e-5)


def test_leaving_at_an_exit_is_that_exit(model: Mask2Former, images: Tensor) -> None:
    """What is chosen for all images alike is what `forward` gives for it."""
    with torch.no_grad():
        prediction, depths = model.leave(images, lambda seen: [2] * len(seen.levels[32]))
        expected = model(images, [2])[2]
    assert depths == [2] * 8
    torch.testing.assert_close(prediction.mask_logits, expected[-1].mask_logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def look_back(model: Mask2Former, images: Tensor, inputs: list[str]) -> Gate:
    """Give the model a gate with these inputs that sends the images to several exits; return it."""
    num_queries, dim = model.decoder.query_feat.weight.shape
    model.gate = Gate(list(input_widths(inputs, dim, num_queries).values()), model.exits, inputs)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.gate.head.weight)
    found: list[Tensor] = []

    def choose(seen: Seen) -> list[int]:
        found.append(torch.cat(list(gate_inputs(seen, inputs).values()), 1))
        return [model.exits[-1]] * len(images)

    model.leave(images, choose, model.gate.after)
    model.gate.absorb(found[0].mean(0), found[0].std(0) + 1e-6)
    return model.gate


@pytest.mark.parametrize("inputs", [["change32"], ["first_masks"], ["mean16", "change8", "first_masks"]])
def test_a_batch_that_looks_back_is_eight_single_runs(model: Mask2Former, images: Tensor, inputs: list[str]) -> None:
    """Some leave at the first exit, to which all run, others go on, each as it would alone and in `forward`."""
    assert look_back(model, images, inputs).after == model.exits[0]
    with torch.no_grad():
        prediction, depths = model.leave(images)
        assert len(set(depths)) > 2
        assert model.exits[0] in depths
        whole = model(images, last_only=True)
        for image, depth in enumerate(depths):
            single, (alone,) = model.leave(images[image : image + 1])
            assert alone == depth
            for ours, expected, plain in zip(prediction, single, whole[depth][0], strict=True):
                torch.testing.assert_close(ours[image : image + 1], expected, atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(ours[image], plain[image], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_gate_that_does_not_look_back_runs_as_ever(model: Mask2Former, images: Tensor) -> None:
    """Bit for bit: it chooses from the projected levels, and the encoder runs once over the sorted batch."""
    decoder, gate = model.pixel_decoder, model.gate
    assert gate is not None
    prediction, depths = model.leave(images)
    with decoder.precision(model.backbone(images)) as features:
        levels, pos, _ = decoder.project(features)
        assert depths == gate.choose(Seen({32: levels[0]}))
        order = sorted(range(8), key=lambda image: -depths[image])
        running = [sum(last >= depth for last in depths) for depth in range(1, max(depths) + 1)]
        left = []
        for depth, memory in decoder.encoder.run([level[order] for level in levels], pos, running):
            left.append([level[sum(last > depth for last in depths) :] for level in memory])
        whole = [torch.cat(parts)[[order.index(i) for i in range(8)]] for parts in zip(*left[::-1], strict=True)]
        memory = decoder.fuse(decoder.lateral(features[4]), whole[-1]), whole
    (expected,) = model.decoder(*memory, last_only=True)
    assert torch.equal(prediction.mask_logits, expected.mask_logits)
    assert torch.equal(prediction.class_logits, expected.class_logits)


@torch.no_grad()
def test_what_is_seen_at_the_first_exit(model: Mask2Former, images: Tensor) -> None:
    """The levels there and one layer earlier, those of `forward`, and masks of the initial queries."""
    decoder, seen = model.pixel_decoder, []
    model.leave(images, lambda one: seen.append(one) or [3] * 8, after=2)  # type: ignore[func-returns-value]
    with decoder.precision(model.backbone(images)) as features:
        levels, pos, _ = decoder.project(features)
        earlier, latest = decoder.encoder(levels, pos, [1, 2]).values()
        lateral = decoder.lateral(features[4])
    for found, expected in zip(seen[0][:3], (levels, earlier, latest), strict=True):
        assert list(found) == [32, 16, 8]
        for ours, theirs in zip(found.values(), expected, strict=True):
            torch.testing.assert_close(ours, theirs)
    masks = seen[0].masks()
    assert masks.shape == (8, 5, 4, 6)  # stride 16
    coarse = decoder.coarse_features(lateral, latest)
    first = model.decoder(coarse, latest)[0]
    torch.testing.assert_close(masks, first.mask_logits, atol=1e-5, rtol=1e-5)


def test_nothing_chooses_without_a_gate(model: Mask2Former, images: Tensor) -> None:
    """A model without a gate raises an error that names the setting."""
    model.gate = None
    with pytest.raises(ValueError, match=r"model\.gate=null"):
        model.leave(images)


@pytest.mark.parametrize("after", [0, 1, 2])
@torch.no_grad()
def test_what_is_seen_on_the_way_to_the_exits(model: Mask2Former, images: Tensor, after: int) -> None:
    """A gate sees what `leave` shows it, exits are those of `forward`, and no layer runs twice."""
    decoder, features, shown, num_runs = model.pixel_decoder, model.backbone(images), [], 0
    model.leave(images, lambda one: shown.append(one) or [4] * 8, after)  # type: ignore[func-returns-value]

    def count(*_: object) -> None:
        nonlocal num_runs
        num_runs += 1

    for layer in decoder.encoder.layers:
        layer.register_forward_hook(count)
    seen, memories = decoder.look_and_encode(features, [2, 4], after, model.first_masks)
    assert num_runs == 4
    for found, expected in zip(seen[:3], shown[0][:3], strict=True):
        assert all(torch.equal(found[stride], expected[stride]) for stride in (32, 16, 8))
    assert torch.equal(seen.masks(), shown[0].masks())
    for depth, (mask_features, levels) in decoder(features, [2, 4]).items():
        assert torch.equal(memories[depth][0], mask_features)
        assert all(torch.equal(a, b) for a, b in zip(memories[depth][1], levels, strict=True))


@torch.no_grad()
def test_padding_is_image(model: Mask2Former, images: Tensor) -> None:
    """As published, Mask2Former predicts the same whatever part of the batch the images fill, and takes no truth."""
    ((expected,),) = model(images, [2], last_only=True).values()
    ((found,),) = model(images, [2], last_only=True, sizes=[(40, 50)] * 8, truths=[None] * 8).values()
    assert torch.equal(found.mask_logits, expected.mask_logits)
