"""Our forms of timm's layers against timm's own."""

import copy

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor

from src.models import backbone_layers
from src.models.backbone import Backbone
from src.models.backbone_layers import PadFirstBlock, use_our_layers

WINDOW, DIM = 4, 12
SMALL_SWIN = {"embed_dim": 12, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 3, 3), "window_size": WINDOW}
SHIFTS = [0, 2, (2, 0), (0, 2), (1, 3)]


def make_block(shift: int | tuple[int, int]) -> PadFirstBlock:
    """A block whose biases and tables are no longer what they start as."""
    torch.manual_seed(0)
    block = SwinTransformerBlock(
        DIM, 8, 3, window_size=WINDOW, shift_size=shift, always_partition=True, dynamic_mask=True
    )
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    use_our_layers(block)
    assert isinstance(block, PadFirstBlock)
    return block.eval()


@torch.no_grad()
def by_strips(block: PadFirstBlock, x: Tensor) -> Tensor:
    assert block.takes_strips(x)
    return block(x)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("tokens", [1, 70, 10**6])  # one row of windows, some, all
def test_strips_equal_timms_block(shift: int | tuple[int, int], tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a size of whole windows, where nobody pads."""
    monkeypatch.setattr(backbone_layers, "STRIP_TOKENS", tokens)
    block = make_block(shift)
    x = torch.randn(2, 5 * WINDOW, 4 * WINDOW, DIM)
    found = by_strips(block, x)
    block.__class__ = SwinTransformerBlock  # type: ignore[assignment]
    torch.testing.assert_close(found, block(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("tokens", [1, 70, 10**6])
@pytest.mark.parametrize("size", [(13, 16), (15, 18), (16, 17), (2, 3), (5, 1)])
def test_strips_equal_the_whole_map(
    shift: int | tuple[int, int], tokens: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rows, columns or both are padded, also by more than the shift."""
    monkeypatch.setattr(backbone_layers, "STRIP_TOKENS", tokens)
    block = make_block(shift)
    x = torch.randn(2, *size, DIM)
    torch.testing.assert_close(by_strips(block, x), block(x), atol=1e-6, rtol=0)


def test_strips_are_for_inference_on_cpus() -> None:
    """Training, gradients, autocast, other devices and compilers take timm's form."""
    block, x = make_block(2), torch.randn(1, 8, 8, DIM)
    assert not block.takes_strips(x)  # gradients are on
    with torch.no_grad():
        assert block.takes_strips(x)
        assert not block.takes_strips(x.to("meta"))
        assert not block.train().takes_strips(x)
        block.eval()
        with torch.autocast("cpu"):
            assert not block.takes_strips(x)


@torch.no_grad()
def test_a_swin_in_strips_keeps_nothing() -> None:
    """Sizes and types may alternate: results depend on the input alone, copies agree, and no buffer appears."""
    options = {**SMALL_SWIN, "strict_img_size": False, "always_partition": True}
    backbone = Backbone("swin_tiny_patch4_window7_224", output_norm=True, options=options).eval()
    names = [name for name, _ in [*backbone.named_parameters(), *backbone.named_buffers()]]
    first, second = torch.randn(1, 3, 75, 101), torch.randn(2, 3, 64, 128)
    before = backbone(first)
    backbone(second)
    again, double = copy.deepcopy(backbone)(first), copy.deepcopy(backbone).double()(first.double())
    for stride, feature in before.items():
        assert torch.equal(again[stride], feature)
        torch.testing.assert_close(double[stride].float(), feature, atol=1e-5, rtol=0)
    assert [name for name, _ in [*backbone.named_parameters(), *backbone.named_buffers()]] == names
