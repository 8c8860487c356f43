"""Segment images, or detect objects in them, from a notebook or a service.

predictor = Predictor.load("runs/NAME/TIME/checkpoints/best.ckpt", "exit=2")
answer = predictor(["photo.jpg"])[0]  # answer.panoptic.ids (H, W), .instances.masks, .boxes.boxes, .exit, ...
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from src.config.build import best_precision, build_task
from src.config.checkpoints import take_weights
from src.config.command_line import configure, quote_path
from src.config.memory import is_short
from src.config.saved_settings import with_saved

Key = TypeVar("Key")
WAITING = 8  # batches of images that may wait for others of their size
BYTES = 2**28  # of waiting images


class Predictor:
    """A trained model that segments images of any size; images of one padded size share a batch.

    Args:
        cfg: a configuration composed from conf/predict.yaml.

    Raises ValueError or FileNotFoundError naming the invalid setting.
    """

    def __init__(self, cfg: DictConfig):
        if cfg.get("model") is None:
            raise ValueError("model=null: a gate alone segments nothing; expected ckpt_path= its parent, and gate=FILE")
        take_weights(cfg, "predict with")
        precision: Any = best_precision() if cfg.trainer.precision == "auto" else cfg.trainer.precision
        self.precision = str(precision)
        self.fabric = lightning.Fabric(accelerator=cfg.trainer.accelerator, devices=1, precision=precision)
        self.batch_size = cfg.data.eval_batch_size
        self.read = instantiate(cfg.read)
        self.task = build_task(cfg, self.fabric.device, precision).eval().to(self.fabric.device)
        self.categories = self.task.categories

    @classmethod
    def load(cls, source: str | Path, *settings: str) -> "Predictor":
        """Load a checkpoint of ours (.ckpt), with its own settings, or published weights. Raises as the class does.

        Args:
            settings: overrides as of `python -m src.predict`, for example `exit=2`, or for published weights
                `+experiment=mask2former_coco`, `categories=coco_panoptic`.
        """
        return cls(settings_of(source, *settings))

    def __call__(self, images: Sequence[Any]) -> list[Any]:
        """Return the prediction of each image: panoptic segments, instances, semantic map (H, W) or boxes, exit, GMAC.

        Args:
            images: paths, Pillow images, or uint8 arrays (H, W, 3) or tensors (3, H, W), RGB.
        """
        answers = {place: answer for place, _, answer in self.stream(enumerate(map(self.read, images)))}
        return [answers[place] for place in range(len(images))]

    def stream(
        self, photos: Iterable[tuple[Key, torch.Tensor]], whole: bool = True
    ) -> Iterator[tuple[Key, torch.Tensor, Any]]:
        """Yield each prediction with its key and its image (3, H, W) uint8 RGB, as soon as it is ready.

        An image waits until a batch of its padded size is full, or too many wait. Images of one size stay in order.

        Args:
            whole: enlarge maps to the size of their image; false: maps of images over `max_pixels` stay smaller.
        """
        waiting: dict[tuple[int, ...], list[tuple[Key, torch.Tensor]]] = {}
        for key, photo in photos:
            size = tuple(self.task.padded(photo.shape[-2:]))
            waiting.setdefault(size, []).append((key, photo))
            sizes = [photo.numel() for batch in waiting.values() for _, photo in batch]
            if len(sizes) >= WAITING * self.batch_size or sum(sizes) > BYTES:
                size = max(waiting, key=lambda one: len(waiting[one]))
            elif len(waiting[size]) < self.batch_size:
                continue
            yield from self.answers(waiting.pop(size), whole)
        for batch in waiting.values():
            yield from self.answers(batch, whole)

    def answers(self, batch: list[tuple[Key, torch.Tensor]], whole: bool) -> Iterator[tuple[Key, torch.Tensor, Any]]:
        """Yield the predictions of one batch. Raises ValueError if memory runs out."""
        try:
            with self.fabric.autocast():
                made = self.task.segment([photo for _, photo in batch])
        except (RuntimeError, MemoryError) as error:
            if not is_short(error):
                raise
            raise ValueError(
                f"out of memory with data.eval_batch_size={self.batch_size}, max_pixels={self.task.max_pixels}: "
                "expected a smaller value of either"
            ) from error
        for (key, photo), answer in zip(batch, made, strict=True):
            yield key, photo, self.task.whole(answer) if whole else answer


def settings_of(source: str | Path, *settings: str) -> DictConfig:
    """Return the settings of `python -m src.predict` for a checkpoint of ours or published weights, see `Predictor`."""
    name = "ckpt_path" if Path(source).suffix == ".ckpt" else "model.weights"
    typed = with_saved([f"{name}={source}", "paths.run=.", *settings])
    return configure([*map(quote_path, typed)], "predict")
