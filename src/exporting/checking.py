"""Whether exported graphs give what torch gives: run in onnxruntime, compared with the model itself.

Letters: B images, H x W their pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.exporting.calibration import Shown, strongest
from src.exporting.graphs import ANSWERS
from src.exporting.session import Session
from src.exporting.tracing import Shape
from src.models.gate import Seen
from src.models.mask2former import Mask2Former

TOLERANCE = {"float32": 1e-3, "float16": 1.0, "int8": np.inf}  # largest difference of a logit; inf: it is only shown
SIZES = ((64, 64), (256, 320))  # tried where a graph takes all


class Check(NamedTuple):
    """The largest differences of one exit for images of one size, or for images of a calibration."""

    exit: int
    size: tuple[int, int]
    batch: int
    class_logits: float
    mask_logits: float
    scores: float | None = None  # of the gate; None without one
    mean_class_logits: float | None = None  # mean differences; these three on real images only
    mean_mask_logits: float | None = None
    changed: float | None = None  # share of pixels whose strongest class is another than torch's

    @property
    def largest(self) -> float:
        """The largest of all; not a number if one of them is not."""
        return float(np.max([self.class_logits, self.mask_logits, self.scores or 0.0]))


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


class Chains:
    """The files of each exit, which run one after the other; exits may share the first ones."""

    def __init__(self, files: Mapping[int, Sequence[Path]]):
        self.files = files
        self.sessions = {file: Session(file) for chain in files.values() for file in chain}

    def __call__(self, images: Tensor) -> dict[int, dict[str, np.ndarray]]:
        """All outputs by name of the files of each exit, for normalised images (B, 3, H, W). No file runs twice."""
        given: dict[Path, dict[str, np.ndarray]] = {}
        found = {}
        for exit_, chain in self.files.items():
            values = {"images": images.numpy()}
            for file in chain:
                if file not in given:
                    given[file] = self.sessions[file](**values)
                values |= given[file]
            found[exit_] = values
        return found


@torch.no_grad()
def check(
    model: Mask2Former, exits: Sequence[int], files: Mapping[int, Sequence[Path]], shape: Shape, gated: bool = False
) -> list[Check]:
    """The differences of each exit's files, which run one after the other, from the model, in all sizes tried.

    `gated`: the files give scores of the model's gate, too.
    """
    chains, found = Chains(files), []
    for batch, size in tried(shape):
        images = noise(batch, size)
        expected: dict[int, Any] = model(images, exits=list(exits), last_only=True)
        wanted = scores_of(model, images) if gated else None
        for exit_, values in chains(images).items():
            classes, masks = (
                float(np.abs(values[name] - one.numpy()).max())
                for name, one in zip(ANSWERS, expected[exit_][0], strict=True)
            )
            scores = None if wanted is None else float(np.abs(values["scores"] - wanted.numpy()).max())
            found.append(Check(exit_, size, batch, classes, masks, scores))
    return found


@torch.no_grad()
def compare(
    model: Mask2Former,
    exits: Sequence[int],
    files: Mapping[int, Sequence[Path]],
    shown: Iterable[Shown],
    gated: bool = False,
) -> list[Check]:
    """The differences of each exit's files from the model on real images, as `check`. `size` is that of the largest."""
    chains = Chains(files)
    found: dict[int, list[Compared]] = {exit_: [] for exit_ in exits}
    sizes, batch = [], 1
    for images, (height, width) in shown:
        expected: dict[int, Any] = model(images, exits=list(exits), last_only=True)
        wanted = scores_of(model, images) if gated else None
        sizes.append((images.shape[-2], images.shape[-1]))
        batch, inside = len(images), (..., slice(-(-height // 4)), slice(-(-width // 4)))
        for exit_, values in chains(images).items():
            found[exit_].append(compared(values, expected[exit_][0], wanted, inside))
    size = max(sizes, key=lambda one: one[0] * one[1])
    return [Check(exit_, size, batch, *summary(of_exit)) for exit_, of_exit in found.items()]


class Compared(NamedTuple):
    """The differences for one image."""

    largest: list[float]  # of class logits, of mask logits, of scores if there are any
    means: list[float]  # of class logits, of mask logits
    changed: float  # share of pixels


def compared(values: dict[str, np.ndarray], expected: Any, scores: Tensor | None, inside: Any) -> Compared:
    """The differences of outputs by name from torch's; `inside`: the pixels that are not padding."""
    logits = [torch.from_numpy(values[name]) for name in ANSWERS]
    apart = [(mine - theirs).abs() for mine, theirs in zip(logits, expected, strict=True)]
    largest = [*apart, *([] if scores is None else [(torch.from_numpy(values["scores"]) - scores).abs()])]
    mine, theirs = strongest(*logits)[inside], strongest(*expected)[inside]
    return Compared(
        [float(one.max()) for one in largest],
        [float(one.mean()) for one in apart],
        float((mine != theirs).float().mean()),
    )


def summary(images: Sequence[Compared]) -> tuple[Any, ...]:
    """The fields of a `Check` after the batch, over images."""
    largest = np.max([one.largest for one in images], 0).tolist()
    means = np.mean([one.means for one in images], 0).tolist()
    return *largest, *[None] * (3 - len(largest)), *means, float(np.mean([one.changed for one in images]))


def scores_of(model: Mask2Former, images: Tensor) -> Tensor:
    """The scores (B, E) of a model's gate."""
    gate, scores = model.gate, []
    assert gate is not None

    def choose(seen: Seen) -> list[int]:
        scores.append(gate(seen))
        return [gate.exits[-1]] * len(images)

    model.leave(images, choose, gate.after)
    return scores[0]


def refuse_wrong(checks: Sequence[Check], precision: str) -> None:
    """Raise ValueError if any difference is above what the precision allows."""
    worst = max(checks, key=lambda one: np.nan_to_num(one.largest, nan=np.inf))
    if not worst.largest <= TOLERANCE[precision]:
        raise ValueError(
            f"exit {worst.exit} differs from torch by {worst.largest:.2g} in onnxruntime for {worst.batch} x "
            f"{worst.size[0]}x{worst.size[1]}; expected at most {TOLERANCE[precision]:g}. Nothing was written"
        )
