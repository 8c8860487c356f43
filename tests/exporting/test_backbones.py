"""Backbones as graphs for images of all sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.exporting.checking import Session, noise
from src.exporting.graphs import Part
from src.exporting.joining import joined
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
    "swin_tiny_patch4_window7_224": {"output_norm": True, "options": SWIN},
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
    """Also sizes whose windows are padded by other numbers of pixels than those of tracing, or by none."""
    torch.manual_seed(0)
    module = Features(Backbone(name, **BACKBONES[name])).eval().requires_grad_(False)
    part, shape = Part("trunk", module, ("images",), OUTPUTS), Shape(None, None)
    made = trace(part, {"images": shape.images()}, shape)
    file = tmp_path / "trunk.onnx"
    file.write_bytes(joined([("trunk", made)], part.inputs, part.outputs).SerializeToString())
    session = Session(file)
    for batch, size in ((1, (64, 96)), (3, (224, 128)), (2, (32, 448))):
        images = noise(batch, size)
        found = session(images=images.numpy())
        with torch.no_grad():
            expected = dict(zip(OUTPUTS, module(images), strict=True))
        for output, one in expected.items():
            scale = float(one.abs().max())
            np.testing.assert_allclose(found[output], one.numpy(), atol=1e-4 * max(scale, 1.0))
