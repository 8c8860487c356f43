"""Our forms of timm's layers against timm's own."""

import copy

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor

from src.metrics.operation_counts import counting, trace
from src.models import backbone_layers
from src.models.backbone import Backbone
from src.models.backbone_layers import (
    FoldedConv,
    FoldedNorm,
    FoldedNormAct,
    FrozenNorm,
    FrozenNormAct,
    PadFirstBlock,
    use_our_layers,
)

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
@pytest.mark.parametrize("size", [(13, 16), (15, 18), (16, 17), (2, 3), (5, 1), (1, 1), (1, 9)])
def test_strips_equal_the_whole_map(
    shift: int | tuple[int, int], tokens: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rows, columns or both are padded, also where a side is shorter than the shift."""
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


@pytest.mark.parametrize("name", ["resnet18", "resnet26", "resnet10t", "tf_efficientnet_lite0", "densenet121"])
@pytest.mark.parametrize("training", [True, False])
def test_folded_norms_equal_frozen_ones(name: str, training: bool) -> None:
    """Features and gradients, in double precision; all convolutions of plain ResNets are folded, and keys stay."""
    folded = Backbone(name, freeze_norm=True).double().train(training)
    torch.manual_seed(0)
    for key, buffer in folded.body.named_buffers():
        buffer.uniform_(0.5, 1.5) if key.endswith(("running_var", "weight")) else buffer.normal_(0, 0.1)
    plain = unfolded(folded)
    if name in ("resnet18", "resnet26"):
        convolutions = [module for module in folded.modules() if isinstance(module, torch.nn.Conv2d)]
        assert all(isinstance(module, FoldedConv) for module in convolutions)
    assert list(folded.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 64, 96, dtype=torch.double)
    found, expected = folded(images), plain(images)
    for features in (found, expected):
        sum(feature.square().mean() for feature in features.values()).backward()
    for stride, feature in expected.items():
        torch.testing.assert_close(found[stride], feature, rtol=1e-9, atol=1e-12)
    for one, other in zip(folded.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-7, atol=1e-10)


def unfolded(backbone: Backbone) -> Backbone:
    """A copy whose norms stand apart from its convolutions."""
    backbone = copy.deepcopy(backbone)
    apart = {FoldedConv: torch.nn.Conv2d, FoldedNorm: FrozenNorm, FoldedNormAct: FrozenNormAct}
    for module in backbone.modules():
        module.__class__ = apart.get(type(module), type(module))
    return backbone


def test_a_copy_folds_its_own_norms() -> None:
    """Not those of the model that it was copied from, and weights that are loaded later count."""
    backbone = Backbone("resnet10t", freeze_norm=True).eval()
    images = torch.randn(1, 3, 64, 64)
    double = copy.deepcopy(backbone)
    state = {name: value * 1.5 if "bn1" in name else value for name, value in backbone.state_dict().items()}
    double.load_state_dict(state)
    assert not torch.equal(double(images)[4], backbone(images)[4])
    torch.testing.assert_close(double(images)[4], unfolded(double)(images)[4])


def test_folding_counts_as_it_did() -> None:
    """The counter sees each norm apart: two multiply-adds per element, as published."""
    backbone = Backbone("resnet10t", freeze_norm=True)
    plain = unfolded(backbone)
    counts = []
    for model in (backbone, plain):
        with counting(model):
            counts.append(trace(model, torch.empty(1, 3, 64, 96, device="meta"))[0][""])
    assert counts[0] == counts[1]
    assert torch.ops.aten.native_batch_norm in counts[0]
