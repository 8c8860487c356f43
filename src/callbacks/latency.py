"""The time that the network takes for an image, at each exit and with a gate."""

from typing import Any

from lightning import Callback, Trainer
from torch import Tensor

from src.system.stopwatch import clock_of, latencies


class Latency(Callback):
    """Times the network after each validation, and logs `val/latency_ms/exit4` and so on, `val/latency_ms/gate` too.

    Measured from a preprocessed image, alone and at its own padded size, to the last prediction, without reading the
    image and without post-processing. Each number is the median over rounds of the mean over images. In a round all
    exits and the gate take turns on every image, so that other load on the machine affects all alike and numbers of one
    run can be compared.

    Latencies are logged at the end of the validation epoch, before scores are written, whatever the order of callbacks.

    Args:
        images: number of images, the first ones of the validation.
        rounds: how often each image is timed, after one round to warm up.
    """

    def __init__(self, images: int, rounds: int):
        self.count, self.rounds = images, rounds
        self.images: list[Tensor] = []

    def setup(self, trainer: Trainer, task: Any, stage: str) -> None:
        """Raise ValueError for several devices, which would wait for each other."""
        if trainer.world_size > 1:
            raise ValueError(f"trainer.devices={trainer.world_size}: callbacks=[latency] times one device, expected 1")

    def on_validation_batch_end(self, trainer: Trainer, task: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Keep images until there are enough."""
        self.images += [image.cpu() for image in batch.images[: self.count - len(self.images)]]

    def on_validation_epoch_end(self, trainer: Trainer, task: Any) -> None:
        """Time the images, and log milliseconds by policy."""
        if self.images and not trainer.sanity_checking:  # a process may have none
            batches = (task.model.preprocess([image.to(task.device)]) for image in self.images)
            context = trainer.precision_plugin.val_step_context
            for row, seconds in latencies(task.ways(), batches, self.rounds, context, clock_of(task.device)).items():
                task.log(f"val/latency_ms/{row}", 1000 * seconds)
        self.images = []
