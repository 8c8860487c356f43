"""The encoder: schedule, exits, re-calibration."""

import math

import pytest
import torch
from torch import Tensor

from src.models.attention import DeformableAttention
from src.models.encoder import Encoder, EncoderLayer, TokenRecalibration, check_exits
from src.models.schedule import Expand, LayerLevels, as_written, expand_schedule, interleaved
from src.weights.architecture import NEEDED, recognise

DIM, SIZES = 8, [(2, 3), (4, 6), (7, 11)]


def make_encoder(
    schedule: list[int], recalibrate: torch.nn.Module | None = None, expand: Expand = as_written
) -> Encoder:
    torch.manual_seed(0)
    small = {"num_heads": 2, "num_points": 2, "dim_feedforward": 16}
    encoder = Encoder(schedule, DIM, recalibrate=recalibrate, expand=expand, **small)
    with torch.no_grad():  # attention that looks somewhere, and not everywhere alike
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder.eval()


def make_levels(batch: int = 1) -> tuple[list[Tensor], list[Tensor]]:
    torch.manual_seed(1)
    return [torch.randn(batch, DIM, *size) for size in SIZES], [torch.randn(DIM, *size) for size in SIZES]


def slow_sample(level: Tensor, x: float, y: float) -> Tensor:
    """A map (C, h, w) at pixel coordinates, bilinear, zero outside: (C,)."""
    total = torch.zeros(len(level))
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < level.shape[1] and 0 <= column < level.shape[2]:
                total += (1 - abs(x - column)) * (1 - abs(y - row)) * level[:, row, column]
    return total


def slow_attention(attention: DeformableAttention, query: Tensor, place: tuple[float, float], levels: list[Tensor]):
    """What one query (C,) at `place` (x, y in 0..1) gathers from levels (C, h, w): (C,)."""
    heads, num_levels, points = attention.num_heads, len(levels), attention.num_points
    offsets = attention.sampling_offsets(query).view(heads, num_levels, points, 2)
    weights = attention.attention_weights(query).view(heads, num_levels * points).softmax(-1)
    gathered = []
    for head in range(heads):
        total = torch.zeros(DIM // heads)
        for level, values in enumerate(levels):
            mine = values[head * DIM // heads : (head + 1) * DIM // heads]
            for point in range(points):
                dx, dy = offsets[head, level, point].tolist()
                x, y = place[0] * values.shape[2] - 0.5 + dx, place[1] * values.shape[1] - 0.5 + dy
                total = total + weights[head, level * points + point] * slow_sample(mine, x, y)
        gathered.append(total)
    return attention.output_proj(torch.cat(gathered))


def slow_layer(layer: EncoderLayer, levels: list[Tensor], pos: list[Tensor]) -> list[Tensor]:
    """Every pixel of every level (C, h, w) in turn."""
    values = [torch.einsum("dc,chw->dhw", layer.self_attn.value_proj.weight, level) for level in levels]
    values = [value + layer.self_attn.value_proj.bias[:, None, None] for value in values]
    updated = [torch.empty_like(level) for level in levels]
    for level, p, new in zip(levels, pos, updated, strict=True):
        height, width = level.shape[1:]
        for row in range(height):
            for column in range(width):
                token = level[:, row, column]
                place = ((column + 0.5) / width, (row + 0.5) / height)
                token = layer.norm1(token + slow_attention(layer.self_attn, token + p[:, row, column], place, values))
                new[:, row, column] = layer.norm2(token + layer.linear2(layer.linear1(token).relu()))
    return updated


@pytest.mark.parametrize("schedule", [[0, 0, 6], [3, 3, 3], [1, 2, 1]])
@torch.no_grad()
def test_equals_a_slow_loop(schedule: list[int]) -> None:
    """Each layer updates the levels that are alive, pixel by pixel, as a plain loop does."""
    encoder, (levels, pos) = make_encoder(schedule), make_levels()
    expected = [level[0] for level in levels]
    for layer, alive in zip(encoder.layers, expand_schedule(schedule), strict=True):
        expected = [*slow_layer(layer, expected[:alive], pos[:alive]), *expected[alive:]]
    (result,) = encoder(levels, pos).values()
    for got, want in zip(result, expected, strict=True):
        torch.testing.assert_close(got[0], want, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("schedule", "expand"), [([2, 2, 2], as_written), ([0, 0, 4], interleaved)])
def test_an_exit_alone_equals_the_same_exit_among_others(schedule: list[int], expand: Expand) -> None:
    """Which other exits are asked for changes no bit of an exit."""
    encoder, (levels, pos) = make_encoder(schedule, expand=expand), make_levels(2)
    together = encoder(levels, pos, [1, 2, 3, 4, 5, 6])
    for depth, expected in together.items():
        (alone,) = encoder(levels, pos, [depth]).values()
        assert all(torch.equal(a, b) for a, b in zip(alone, expected, strict=True))


@torch.no_grad()
def test_a_layer_samples_levels_that_it_leaves_as_they_are() -> None:
    """Lite DETR's layers equal a slow loop in which queries and sampled levels differ."""
    encoder, (levels, pos) = make_encoder([0, 0, 2], expand=interleaved), make_levels()
    expected = [level[0] for level in levels]
    by_depth = encoder(levels, pos, [1, 2, 3])
    for depth, updated in ((1, [0, 1]), (2, [0, 1]), (3, [2])):
        new = slow_layer(encoder.layers[depth - 1], expected, pos)
        expected = [new[i] if i in updated else level for i, level in enumerate(expected)]
        for got, want in zip(by_depth[depth], expected, strict=True):
            torch.testing.assert_close(got[0], want, atol=1e-4, rtol=1e-4)
    assert torch.equal(by_depth[2][2], levels[2])
    assert torch.equal(by_depth[3][0], by_depth[2][0])
    assert torch.equal(by_depth[3][1], by_depth[2][1])


@torch.no_grad()
def test_layers_that_update_all_levels_are_mask2formers() -> None:
    """To the bit, with the same weights: Mask2Former's layers are a value of the same thing as Lite DETR's."""
    plain, (levels, pos) = make_encoder([0, 0, 3]), make_levels(2)
    layers = [LayerLevels(range(3), 3)] * 3
    same = make_encoder([0, 0, 3], expand=lambda schedule, num_levels: layers)
    lite = make_encoder([0, 0, 2], expand=interleaved)  # three layers, too
    _, left_over = lite.load_state_dict(plain.state_dict(), strict=False)
    assert not left_over
    lite.levels_of_layers = layers
    expected = plain(levels, pos, [1, 2, 3])
    assert same.state_dict().keys() == plain.state_dict().keys()
    for other in (same, lite):
        for depth, memory in other(levels, pos, [1, 2, 3]).items():
            assert all(torch.equal(a, b) for a, b in zip(memory, expected[depth], strict=True))


@torch.no_grad()
def test_a_layer_in_parts_is_the_layer() -> None:
    """Coarse levels updated beside the finest, from the same levels, give what one layer for all gives."""
    whole, (levels, pos) = make_encoder([0, 0, 1]), make_levels(2)
    (expected,) = whole(levels, pos).values()
    for updated in (range(2), range(2, 3), range(1, 2)):
        whole.levels_of_layers = [LayerLevels(updated, 3)]
        (got,) = whole(levels, pos).values()
        for i, level in enumerate(got):
            torch.testing.assert_close(level, expected[i] if i in updated else levels[i], atol=1e-6, rtol=1e-5)


def test_weights_of_lite_do_not_fit_mask2former() -> None:
    """Though every shape is the same: layers that update other levels would compute something else."""
    lite, plain = make_encoder([0, 0, 2], expand=interleaved), make_encoder([0, 0, 3])
    assert lite.state_dict().keys() - plain.state_dict().keys() == {"updated_levels"}
    state = {f"pixel_decoder.encoder.{name}": value for name, value in lite.state_dict().items()}
    with pytest.raises(ValueError, match="Lite DETR style"):
        recognise(state | dict.fromkeys(NEEDED, torch.zeros(1, 1)), "ours")


def test_every_weight_of_lite_learns() -> None:
    """Each layer, whatever levels it updates, reaches the levels at the end: DDP waits for no gradient."""
    encoder, (levels, pos) = make_encoder([0, 0, 4], expand=interleaved), make_levels()
    (memory,) = encoder(levels, pos).values()
    sum(level.square().sum() for level in memory).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())


@torch.no_grad()
def test_levels_not_yet_alive_leave_as_they_came() -> None:
    """At an exit inside stage 1, strides 16 and 8 are the very tensors that entered."""
    encoder, (levels, pos) = make_encoder([2, 1, 1], TokenRecalibration(DIM)), make_levels()
    early = encoder(levels, pos, [2])[2]
    assert not torch.equal(early[0], levels[0])
    assert early[1].data_ptr() == levels[1].data_ptr()
    assert early[2].data_ptr() == levels[2].data_ptr()


@torch.no_grad()
def test_two_images_are_one_image_twice() -> None:
    """An image does not notice who else is in its batch."""
    encoder, (levels, pos) = make_encoder([1, 1, 1], TokenRecalibration(DIM)), make_levels()
    (one,) = encoder(levels, pos).values()
    (two,) = encoder([level.repeat(2, 1, 1, 1) for level in levels], pos).values()
    for single, double in zip(one, two, strict=True):
        torch.testing.assert_close(double, single.repeat(2, 1, 1, 1), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_recalibration_weighs_each_place_by_the_finest_level_there() -> None:
    """Gate = sigmoid(tau (w . finest at this place + b)), one number per token (PRO-SCALE)."""
    torch.manual_seed(0)
    recalibrate = TokenRecalibration(DIM, temperature=0.5)
    finest, level = torch.randn(2, DIM, 8, 12), torch.randn(2, DIM, 4, 6)
    seen = finest.unflatten(-1, (6, 2)).unflatten(2, (4, 2)).mean((3, 5))  # half the size bilinearly: mean of 2 x 2
    score = torch.einsum("bchw,c->bhw", seen, recalibrate.excite.weight[0]) + recalibrate.excite.bias
    torch.testing.assert_close(recalibrate(level, finest), level * (0.5 * score).sigmoid()[:, None])


@torch.no_grad()
def test_legacy_layout_reads_tokens_as_if_they_lay_channel_by_channel() -> None:
    """The published operation re-computed by hand: two reinterpretations of memory around the resize."""
    torch.manual_seed(0)
    legacy = TokenRecalibration(DIM, legacy_layout=True)
    finest, level = torch.randn(1, DIM, 4, 6), torch.randn(1, DIM, 2, 3)
    tokens = [finest[0, :, row, column].tolist() for row in range(4) for column in range(6)]
    memory = torch.tensor([value for token in tokens for value in token])  # token after token
    shrunk = memory.view(DIM, 2, 2, 3, 2).mean((2, 4))  # read as (C, 4, 6), then each 2 x 2 to its mean
    rows = torch.tensor(shrunk.flatten().tolist()).view(6, DIM)  # read as six tokens
    gate = (0.1 * (rows @ legacy.excite.weight[0] + legacy.excite.bias)).sigmoid().view(2, 3)
    torch.testing.assert_close(legacy(level, finest), level * gate)


@pytest.mark.parametrize("exits", [[7], [0], [], [2, -1]])
def test_an_exit_deeper_than_the_encoder_is_refused(exits: list[int]) -> None:
    """The error repeats the exits and says how deep the encoder is."""
    with pytest.raises(ValueError, match=r"exits=\[.*6 layers"):
        check_exits(exits, 6)


def test_no_exits_means_the_last_layer() -> None:
    """`null` is a value like any other: the depth."""
    assert check_exits(None, 6) == [6]
    assert check_exits([4, 2, 4], 6) == [2, 4]


@pytest.mark.parametrize(
    ("schedule", "expand"),
    [([0, 0, 6], as_written), ([3, 3, 3], as_written), ([1, 2, 1], as_written), ([0, 0, 4], interleaved)],
)
@pytest.mark.parametrize("depths", [[4, 1, 2, 4, 3], [2, 2], [1], [1, 2, 3, 4]], ids=str)
def test_images_that_leave_early_are_as_if_alone(schedule: list[int], expand: Expand, depths: list[int]) -> None:
    """In whatever order, each image has been through as many layers as its depth says, and no more."""
    encoder = make_encoder(schedule, expand=expand)
    levels, pos = make_levels(len(depths))
    with torch.no_grad():
        together = encoder.leave(levels, pos, depths)
        for image, depth in enumerate(depths):
            alone = encoder([level[image : image + 1] for level in levels], pos, [depth])[depth]
            for ours, expected in zip(together, alone, strict=True):
                torch.testing.assert_close(ours[image : image + 1], expected, atol=1e-5, rtol=1e-5)


def test_no_layer_sees_an_image_that_has_left() -> None:
    """Layer by layer the batch shrinks, and layers past the deepest image do not run."""
    encoder = make_encoder([0, 0, 6])
    seen: list[tuple[int, int]] = []
    for depth, layer in enumerate(encoder.layers, 1):
        layer.register_forward_hook(lambda module, inputs, output, depth=depth: seen.append((depth, len(output))))
    levels, pos = make_levels(5)
    with torch.no_grad():
        encoder.leave(levels, pos, [2, 4, 2, 1, 4])
    assert seen == [(1, 5), (2, 4), (3, 2), (4, 2)]


@pytest.mark.parametrize("schedule", [[0, 0, 4], [1, 2, 1], [2, 0, 2]])
@pytest.mark.parametrize("start", [1, 2, 3])
def test_layers_may_be_run_in_two_parts(schedule: list[int], start: int) -> None:
    """Levels after some layers are all that the rest needs, also of levels that become active later."""
    encoder, (levels, pos) = make_encoder(schedule, TokenRecalibration(DIM)), make_levels(4)
    depths = [4, start, 3, start]
    with torch.no_grad():
        (*_, (_, first)) = encoder.run(levels, pos, [4] * start)
        for ours, expected in zip(
            encoder.leave(first, pos, depths, start), encoder.leave(levels, pos, depths), strict=True
        ):
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_a_depth_that_all_images_have_passed_is_refused() -> None:
    """No image can leave before the layers that it has run."""
    levels, pos = make_levels(2)
    with pytest.raises(ValueError, match=r"depths=\[2, 1\]: all images have run 2 layers"):
        make_encoder([1, 2, 1]).leave(levels, pos, [2, 1], start=2)


def test_a_depth_the_encoder_does_not_have_is_refused() -> None:
    """For a single image, too."""
    levels, pos = make_levels(2)
    with pytest.raises(ValueError, match="4 layers, expected depths from 1 to 4"):
        make_encoder([1, 2, 1]).leave(levels, pos, [4, 5])
