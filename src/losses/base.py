"""What tasks ask of a criterion, whatever is predicted: masks or boxes."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, Protocol

import torch
import torch.distributed
from torch import Tensor, nn

from src.models.postprocess import Frame


class Annotated(Protocol):
    """The truth of one image: N segments or boxes without crowds."""

    @property
    def labels(self) -> Tensor:
        """Return class indices (N,)."""

    @property
    def segments(self) -> Tensor:
        """Return the map (L, H, W), n where the n-th segment lies."""

    def boxes(self) -> Tensor:
        """Return boxes (N, 4), left, top, right and bottom in pixels of the map."""


class Criterion(nn.Module):
    """Base class of the losses of a list of predictions, of training or of one image.

    Args:
        weights: of the parts of the loss, by the names that they have in results.
    """

    def __init__(self, weights: dict[str, float]):
        super().__init__()
        self.weights = weights

    @abstractmethod
    def forward(
        self, predictions: Sequence[Any], truths: Sequence[Annotated], size: Sequence[int]
    ) -> tuple[dict[str, Tensor], int]:
        """Weighted losses {"class/layer0": ...} to sum up, and how many matching costs were not finite.

        Args:
            predictions: one per decoder layer; layer n of the result is the n-th of them, with a loss of each name in
                `weights`.
            truths: B truths.
            size: (height, width) of the padded batch.
        """

    @abstractmethod
    def image_terms(self, prediction: Any, row: int, frame: Frame, truth: Annotated) -> dict[str, Tensor]:
        """Losses of the image `row` of a batch after matching, without weights, by the names in `weights`."""

    @torch.no_grad()
    def image_loss(self, prediction: Any, row: int, frame: Frame, truth: Annotated) -> float:
        """Return the loss of one image, as a measure of how good its prediction is (ECO-M2F, step B).

        Nothing in it is random, and it is a mean over the image's objects, so that images with few and with many
        compare. `truth` has one object at least, at the image's original size. Raises FloatingPointError for a loss
        that is not finite.
        """
        with torch.autocast(prediction.class_logits.device.type, enabled=False):
            terms = self.image_terms(prediction, row, frame, truth)
            loss = float(sum(self.weights[name] * term for name, term in terms.items()))
        if not isfinite(loss):
            raise FloatingPointError(
                f"the loss of an image is {loss}, expected a finite number; try trainer.precision=32-true"
            )
        return loss

    def distillation(self) -> Callable[[Sequence[Any], Sequence[Any]], dict[str, Tensor]]:
        """Return the divergence of a student's predictions from a teacher's. Raises ValueError if there is none."""
        raise ValueError(f"task.distil: {type(self).__name__} has no distillation, expected task.distil=0")


def average_over_processes(count: int, device: torch.device) -> Tensor:
    """Return the mean per process of a number of annotated objects, at least one."""
    total, num_processes = torch.tensor(float(count), device=device), 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
        num_processes = torch.distributed.get_world_size()
    return (total / num_processes).clamp(min=1)
