"""ECO-M2F, step B: quality and cost of every image at every exit, from one pass through backbone and encoder.

Letters: B images, E exits, F numbers of a gate input.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from src.losses.base import Criterion
from src.models.gate import gate_inputs, input_widths, layers_seen
from src.models.postprocess import Frame
from src.tasks.base import EvaluationTask
from src.tasks.batches import like_sized, mirror
from src.weights.checkpoint import fingerprint

if TYPE_CHECKING:
    from src.data.targets import Batch, Truth


class ExitOracle(EvaluationTask):
    """Labels images with a parent: quality and cost at every exit, and the inputs of gates.

    Quality is that of a single image, nan for an image without annotations. It is a score in 0..1: PQ (panoptic), mean
    IoU over its classes (semantic) or AP over one ranking of all classes (instance and boxes, see `image_ap`). Or it is
    minus the loss: negative, without a lower bound, and smooth, where a score jumps when the IoU of a segment crosses one half.

    Args:
        criterion: takes the number of classes; of the loss as quality.
        inputs: what to record for gates, see `gate_inputs`; what looks back is taken at the shallowest exit.
        quality: score or loss.
        mirrored: exchange left and right of all images and their truth: a second measurement of the same images.
        others: as `EvaluationTask`.
    """

    refusal = "task=exit_oracle labels images and does not train: python -m src.label, not src.train"

    def __init__(
        self,
        *,
        criterion: Callable[..., Criterion],
        inputs: Sequence[str] = ("mean32",),
        quality: str = "score",
        mirrored: bool = False,
        **others: Any,
    ):
        super().__init__(**others)
        self.inputs = list(inputs)
        self.model.check_visible(self.inputs)
        self.criterion, self.mirrored = criterion(num_classes=len(self.categories)), mirrored
        qualities = {"score": self.evaluation.quality_of, "loss": self.minus_loss}
        if quality not in qualities:
            raise ValueError(f"task.quality={quality}: expected score or loss")
        self.quality_of = qualities[quality]

    def about(self) -> dict[str, Any]:
        """Return the facts of the parent that an exit table records."""
        dim, num_queries = self.model.pixel_decoder.dim, self.model.decoder.num_queries
        return {
            "parent": fingerprint(self.model),
            "exits": self.model.exits,
            "segmentation": self.segmentation,
            "inputs": input_widths(self.inputs, dim, num_queries),
        }

    def predict_step(self, batch: "Batch", batch_index: int) -> dict[str, Any]:
        """Return quality (B, E), cost (B, E) in GFLOPs and gate inputs {name: (B, F)}, in the order of the batch."""
        batch = mirror(batch) if self.mirrored else batch
        groups = like_sized(batch.images, self.model.padded)
        order = torch.tensor(list(chain.from_iterable(groups))).argsort()
        qualities, costs, inputs = zip(*(self.label(batch, places) for places in groups), strict=True)
        return {
            "quality": torch.cat(qualities)[order],
            "cost": torch.cat(costs)[order],
            "inputs": {name: torch.cat([one[name] for one in inputs])[order] for name in self.inputs},
        }

    def label(self, batch: "Batch", places: Sequence[int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Label the images at these places, which share a padded size."""
        images = self.model.preprocess([batch.images[place] for place in places])
        features, after = self.model.backbone(images), layers_seen(self.inputs, self.model.exits[0])
        exits, first_masks = self.model.exits, self.model.first_masks
        seen, memories = self.model.pixel_decoder.look_and_encode(features, exits, after, first_masks)
        inputs = {name: values.cpu() for name, values in gate_inputs(seen, self.inputs).items()}
        quality = torch.full((len(places), len(self.model.exits)), torch.nan)
        for column, memory in enumerate(memories.values()):
            (prediction,) = self.model.read(memory, last_only=True)
            for row, place in enumerate(places):
                truth, size = batch.truths[place], batch.images[place].shape[-2:]
                if bool((~truth.crowd).any()):
                    frame = Frame(images.shape[-2:], size, truth.segments.shape[-2:])
                    quality[row, column] = self.quality_of(prediction, row, frame, truth)
        sizes = [(batch.images[place].shape[-2:], batch.truths[place].segments[0].numel()) for place in places]
        return quality, torch.tensor([self.cost_of(*size) for size in sizes]), inputs

    def minus_loss(self, prediction: Any, image: int, frame: Frame, truth: "Truth") -> float:
        """Return minus the loss of one image, against the target of training; nan if that has no segment."""
        target = truth.for_task(self.categories, self.segmentation)
        if not len(target.labels):
            return float("nan")
        return -self.criterion.image_loss(prediction, image, frame, target)
