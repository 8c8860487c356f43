"""Encoders of detectors: any number of levels, and images that do not fill their batch."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.encoder import Encoder
from src.models.encoder_layers import EncoderLayer, GlobalEncoderLayer
from src.models.position import SinePosition
from src.models.schedule import Expand, as_written, growing, interleaved

DIM = 8
PADDED = [(3, 4), (6, 8), (12, 16), (24, 32)]  # (h, w) of the levels of a batch
VALID = [[(3, 4), (6, 8), (12, 16), (24, 32)], [(2, 4), (4, 7), (8, 13), (15, 25)], [(3, 1), (5, 2), (9, 4), (18, 7)]]
ENCODERS = {
    "detr": ([4], as_written, GlobalEncoderLayer),
    "deformable": ([0, 0, 0, 4], as_written, EncoderLayer),
    "proscale": ([1, 1, 1, 1], as_written, EncoderLayer),
    "growing": ([0, 0, 0, 2], growing, EncoderLayer),
    "lite": ([0, 0, 0, 2], interleaved, EncoderLayer),
    "global": ([0, 2, 1, 1], as_written, GlobalEncoderLayer),
}
every_encoder = pytest.mark.parametrize("name", list(ENCODERS))


def make_encoder(name: str) -> Encoder:
    torch.manual_seed(0)
    schedule, expand, layer = ENCODERS[name]
    small = {"num_heads": 2, "num_points": 2, "dim_feedforward": 16}
    encoder = Encoder(schedule, DIM, expand=expand, layer=layer, num_levels=len(schedule), **small)
    with torch.no_grad():  # attention that looks somewhere, and not everywhere alike
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder.eval()


def make_batch(num_levels: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Three images of different sizes, anything outside of them: levels, positions, and what is inside."""
    torch.manual_seed(1)
    levels = [torch.randn(3, DIM, *size) for size in PADDED[:num_levels]]
    inside = [torch.zeros(3, *size, dtype=torch.bool) for size in PADDED[:num_levels]]
    for image, sizes in enumerate(VALID):
        for one, (height, width) in zip(inside, sizes, strict=False):
            one[image, :height, :width] = True
    return levels, [SinePosition()(level, one) for level, one in zip(levels, inside, strict=True)], inside


def alone(levels: list[Tensor], image: int) -> list[Tensor]:
    """The levels of an image without padding, (1, C, h, w) each."""
    return [level[image : image + 1, :, :h, :w] for level, (h, w) in zip(levels, VALID[image], strict=False)]


@every_encoder
@torch.no_grad()
def test_an_image_in_a_padded_batch_is_the_image_alone(name: str) -> None:
    """At every exit: what is outside is neither sampled nor attended to, and shifts no place and no position."""
    encoder = make_encoder(name)
    levels, pos, inside = make_batch(len(ENCODERS[name][0]))
    exits = list(range(1, encoder.depth + 1))
    together = encoder(levels, pos, exits, inside)
    for image in range(3):
        own = alone(levels, image)
        expected = encoder(own, [SinePosition()(level) for level in own], exits)
        for depth in exits:
            for found, single in zip(alone(together[depth], image), expected[depth], strict=True):
                torch.testing.assert_close(found, single, atol=1e-5, rtol=1e-5)


@every_encoder
@torch.no_grad()
def test_exits_of_padded_images(name: str) -> None:
    """An exit alone equals the same exit among others, and images that leave one by one are as if all left there."""
    encoder = make_encoder(name)
    levels, pos, inside = make_batch(len(ENCODERS[name][0]))
    together = encoder(levels, pos, list(range(1, encoder.depth + 1)), inside)
    for depth, expected in together.items():
        (only,) = encoder(levels, pos, [depth], inside).values()
        assert all(torch.equal(a, b) for a, b in zip(only, expected, strict=True))
    depths = [2, encoder.depth, 1]
    left = encoder.leave(levels, pos, depths, inside=inside)
    for image, depth in enumerate(depths):
        for found, expected in zip(left, together[depth], strict=True):
            torch.testing.assert_close(found[image], expected[image], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_four_levels_become_active_one_by_one() -> None:
    """Those that are not yet, are the very tensors that entered."""
    encoder, (levels, pos, inside) = make_encoder("proscale"), make_batch(4)
    assert [encoder.active_at(depth) for depth in (1, 2, 3, 4)] == [1, 2, 3, 4]
    for depth, memory in encoder(levels, pos, [1, 2, 3, 4], inside).items():
        for place, (found, level) in enumerate(zip(memory, levels, strict=True)):
            assert (found.data_ptr() == level.data_ptr()) is (place >= depth)


@every_encoder
@torch.no_grad()
def test_images_that_fill_the_batch(name: str) -> None:
    """Saying that all is inside changes nothing but how places are stored."""
    encoder = make_encoder(name)
    levels, _, inside = make_batch(len(ENCODERS[name][0]))
    everywhere = [torch.ones_like(one) for one in inside]
    (found,) = encoder(
        levels, [SinePosition()(*both) for both in zip(levels, everywhere, strict=True)], None, everywhere
    ).values()
    (expected,) = encoder(levels, [SinePosition()(level) for level in levels]).values()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [EncoderLayer, GlobalEncoderLayer])
def test_dropout_is_of_training(layer: Callable[..., nn.Module]) -> None:
    """In evaluation it changes nothing, in training every pass is another."""
    torch.manual_seed(0)
    encoder = Encoder([1], DIM, 2, 2, 16, num_levels=1, layer=lambda *sizes: layer(*sizes, dropout=0.5))
    levels, pos, _ = make_batch(1)

    def run() -> Tensor:
        return encoder(levels, pos)[1][0]

    assert not torch.equal(run(), run())
    encoder.eval()
    assert torch.equal(run(), run())


def test_more_counts_than_levels() -> None:
    """A schedule for four levels does not fit an encoder of one."""
    with pytest.raises(ValueError, match=r"schedule=\[0, 0, 0, 6\]: expected up to 1 counts"):
        Encoder([0, 0, 0, 6], DIM, 2, num_levels=1)


@pytest.mark.parametrize(("expand", "expected"), [(growing, "1 2 3 4"), (interleaved, "1-3/4 1-3/4 4/4")])
def test_schedules_of_four_levels(expand: Expand, expected: str) -> None:
    """Other encoders follow from the layers of one with all levels, and refuse any other schedule."""
    assert " ".join(map(str, expand([0, 0, 0, 2], num_levels=4))) == expected
    with pytest.raises(ValueError, match=r"all 4 levels, expected \[0, 0, 0, layers\]"):
        expand([0, 0, 2], num_levels=4)


@pytest.mark.parametrize("offset", [0.0, -0.5])
def test_positions_by_hand(offset: float) -> None:
    """Row and column as shares of the image's own, however far the batch is padded; `temperature` slows frequencies."""
    position, inside = SinePosition(temperature=20.0, offset=offset), F.pad(torch.ones(1, 3, 5), (0, 2, 0, 4)).bool()
    found = position(torch.zeros(1, 8, 7, 7), inside)[0]
    row, column = 2 * torch.pi * (2 + offset) / 3, 2 * torch.pi * (5 + offset) / 5
    angles = [(row, 0), (row, 1), (column, 0), (column, 1)]
    by_hand = [
        value
        for place, pair in angles
        for value in (torch.tensor(place * 20 ** (-pair / 2)).sin(), torch.tensor(place * 20 ** (-pair / 2)).cos())
    ]
    torch.testing.assert_close(found[:, 1, 4], torch.stack(by_hand), atol=1e-5, rtol=1e-5)
