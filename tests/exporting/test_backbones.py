"""Backbones as graphs, for images of all sizes or of one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.exporting.checking import noise
from src.exporting.exporter import Exporter
from src.exporting.graphs import Part
from src.exporting.joining import joined
from src.exporting.session import Session
from src.exporting.tracing import Shape, trace
from src.models.backbone import Backbone

pytestmark = pytest.mark.slow

OUTPUTS = ("skip", "level_8", "level_16", "level_32")
SWIN = {"depths": [2, 2, 1, 1], "embed_dim": 12, "num_heads": [1, 2, 2, 2]}
SWIN |= {"strict_img_size": False, "always_partition": True}
BACKBONES: dict[str, dict[str, Any]] = {
    "resnet10t": {"freeze_norm": True},
    "tf_efficientnet_lite0": {},
    "convnext_atto": {},
}


class Features(nn.Module):
    """The maps of a backbone, finest first."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(images).values())


@pytest.mark.parametrize("name", BACKBONES)
def test_one_graph_takes_all_sizes(name: str, tmp_path: Path) -> None:
    """Other sizes and batches than those of tracing."""
    compare(
        Backbone(name, **BACKBONES[name]), Shape(None, None), [(1, (64, 96)), (3, (224, 128)), (2, (32, 448))], tmp_path
    )


def test_a_swin_takes_the_size_it_was_traced_with(tmp_path: Path) -> None:
    """And any number of images; its windows are padded there."""
    backbone = Backbone("swin_tiny_patch4_window7_224", output_norm=True, options=SWIN)
    compare(backbone, Shape((64, 96), None), [(1, (64, 96)), (3, (64, 96))], tmp_path)


def test_a_swin_for_all_sizes_is_refused(tmp_path: Path) -> None:
    """One line says what to give instead, and nothing is written."""
    model: Any = Features(Backbone("swin_tiny_patch4_window7_224", options=SWIN))
    model.exits = [1]
    with pytest.raises(ValueError, match=r"sizes=null: a Swin .* for example sizes=\[\[512,672\]\]"):
        Exporter(str(tmp_path / "out"), "swin")(SimpleNamespace(model=model, budget=None, gated=False), "weights")
    assert not (tmp_path / "out").exists()


def compare(backbone: Backbone, shape: Shape, tried: list[tuple[int, tuple[int, int]]], folder: Path) -> None:
    """Check that a graph gives what the backbone gives, for batches of images of some sizes."""
    torch.manual_seed(0)
    module = Features(backbone).eval().requires_grad_(False)
    part = Part("trunk", module, ("images",), OUTPUTS)
    made = trace(part, {"images": shape.images()}, shape)
    file = folder / "trunk.onnx"
    file.write_bytes(joined([("trunk", made)], part.inputs, part.outputs).SerializeToString())
    session = Session(file)
    for batch, size in tried:
        images = noise(batch, size)
        found = session(images=images.numpy())
        with torch.no_grad():
            expected = dict(zip(OUTPUTS, module(images), strict=True))
        for output, one in expected.items():
            scale = float(one.abs().max())
            np.testing.assert_allclose(found[output], one.numpy(), atol=1e-4 * max(scale, 1.0))
