"""Whether exported graphs give what torch gives: run in onnxruntime, compared with the model itself.

Letters: B images, H x W their pixels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.exporting.graphs import ANSWERS
from src.exporting.tracing import Shape
from src.models.mask2former import Mask2Former

TOLERANCE = {"float32": 1e-3, "float16": 1.0}  # largest difference of a logit
SIZES = ((64, 64), (256, 320))  # tried where a graph takes all


class Check(NamedTuple):
    """The largest differences of one exit for images of one size."""

    exit: int
    size: tuple[int, int]
    batch: int
    class_logits: float
    mask_logits: float

    @property
    def largest(self) -> float:
        return max(self.class_logits, self.mask_logits)


class Session:
    """An ONNX file in onnxruntime, on a CPU."""

    def __init__(self, file: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.names = [one.name for one in self.session.get_outputs()]

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        taken = {one.name: inputs[one.name] for one in self.session.get_inputs()}
        return dict(zip(self.names, self.session.run(None, taken), strict=True))


def tried(shape: Shape) -> list[tuple[int, tuple[int, int]]]:
    """The numbers of images and the sizes that graphs of a shape are checked with."""
    sizes = SIZES if shape.size is None else [shape.size]
    return [(shape.batch or 1 + place, size) for place, size in enumerate(sizes)]


def noise(batch: int, size: Sequence[int], seed: int = 0) -> Tensor:
    """Normalised images (B, 3, H, W) with large and small structures."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    coarse = torch.randn(batch, 3, max(height // 32, 1), max(width // 32, 1), generator=generator)
    fine = torch.randn(batch, 3, height, width, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") + 0.3 * fine


@torch.no_grad()
def check(model: Mask2Former, exits: Sequence[int], files: dict[int, list[Path]], shape: Shape) -> list[Check]:
    """The differences of each exit's files, which run one after the other, from the model, in all sizes tried."""
    sessions: dict[Path, Session] = {file: Session(file) for chain in files.values() for file in chain}
    found = []
    for batch, size in tried(shape):
        images = noise(batch, size)
        expected: dict[int, Any] = model(images, exits=list(exits), last_only=True)
        for exit_ in exits:
            values = {"images": images.numpy()}
            for file in files[exit_]:
                values |= sessions[file](**values)
            differences = [
                float(np.abs(values[name] - one.numpy()).max())
                for name, one in zip(ANSWERS, expected[exit_][0], strict=True)
            ]
            found.append(Check(exit_, size, batch, *differences))
    return found


def refuse_wrong(checks: Sequence[Check], precision: str) -> None:
    """Raise ValueError if any difference is above what the precision allows."""
    worst = max(checks, key=lambda one: one.largest)
    if not worst.largest <= TOLERANCE[precision]:
        raise ValueError(
            f"exit {worst.exit} differs from torch by {worst.largest:.2g} in onnxruntime for {worst.batch} x "
            f"{worst.size[0]}x{worst.size[1]}; expected at most {TOLERANCE[precision]:g}. Nothing was written"
        )
