"""Image, truth and prediction side by side, as one looks at them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import WandbLogger
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

HEIGHT = 320  # of a panel, pixels
MARGIN, TITLE = 8, 22
LEAST_SCORE = 0.5  # of an instance that is drawn
ROOM = 900  # pixels of a panel that a segment must have to be named


class Pictures(lightning.Callback):
    """Saves the first `count` validation images at each validation, the newest over the older."""

    def __init__(self, folder: str, count: int = 8):
        self.folder = Path(folder)
        self.count = count
        self.images: list[Image.Image] = []

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        task: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw what is still wanted."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        for image, truth, name, answer in zip(batch.images, batch.truths, batch.names, outputs["answers"], strict=True):
            if len(self.images) < self.count:
                file = self.folder / f"{len(self.images):02d}_{Path(name).stem.replace(' ', '_')}.png"
                self.images.append(draw(image, truth, answer, task.categories))
                self.folder.mkdir(parents=True, exist_ok=True)
                self.images[-1].save(file)

    def on_validation_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """Hand the pictures to W&B, if it listens."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and self.images:
                logger.log_image("pictures", self.images, step=trainer.global_step)
        self.images = []


def draw(image: Tensor, truth: Any, answer: Any, categories: Sequence[Any]) -> Image.Image:
    """Three panels: the image (3, h, w) uint8, its annotated segments, and those predicted."""
    height, width = truth.segments.shape[-2:]
    width = round(HEIGHT * width / height)
    photo = Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).resize((width, HEIGHT))
    panels = {
        "image": photo,
        "truth": paint(photo, *flatten(truth), categories),
        f"prediction, exit {answer.exit}": paint(photo, *answered(answer), categories),
    }
    return side_by_side(panels)


def side_by_side(panels: Mapping[str, Image.Image]) -> Image.Image:
    """Panels of one size, each under its title."""
    width, height = next(iter(panels.values())).size
    sheet = Image.new("RGB", (len(panels) * (width + MARGIN) + MARGIN, height + TITLE + MARGIN), "white")
    for column, (title, panel) in enumerate(panels.items()):
        left = MARGIN + column * (width + MARGIN)
        ImageDraw.Draw(sheet).text((left, 3), title, "black", ImageFont.load_default(14))
        sheet.paste(panel, (left, TITLE))
    return sheet


def flatten(truth: Any) -> tuple[np.ndarray, list[int]]:
    """One map (H, W) of a truth's segments, the first layer on top, and their classes."""
    ids = truth.segments[0]
    for layer in truth.segments[1:]:
        ids = ids.where(ids > 0, layer)
    return ids.cpu().numpy(), truth.labels.tolist()


def answered(answer: Any) -> tuple[np.ndarray, list[int]]:
    """One map (H, W) of an answer's segments and their classes."""
    if answer.panoptic is not None:
        return answer.panoptic.ids.cpu().numpy(), answer.panoptic.labels.tolist()
    if answer.semantic is not None:
        present = answer.semantic.unique()
        return 1 + torch.searchsorted(present, answer.semantic).cpu().numpy(), present.tolist()
    instances = answer.instances
    order = [i for i in instances.scores.argsort().tolist() if instances.scores[i] >= LEAST_SCORE]
    ids = np.zeros(tuple(instances.masks.shape[-2:]), np.int64)
    for number, i in enumerate(order, 1):  # the surest last, on top
        ids[instances.masks[i].cpu().numpy()] = number
    return ids, instances.labels[order].tolist()


def paint(photo: Image.Image, ids: np.ndarray, labels: list[int], categories: Sequence[Any]) -> Image.Image:
    """The photo under its segments: coloured by class, outlined, named where there is room; unlabelled is dark."""
    ids = np.asarray(Image.fromarray(ids.astype(np.int32)).resize(photo.size, Image.Resampling.NEAREST))
    colors = np.array([(0, 0, 0), *(shade(categories[c], i) for i, c in enumerate(labels))], np.float64)
    mixed = 0.35 * np.asarray(photo) + 0.65 * colors[ids]
    edge = np.zeros(ids.shape, bool)
    edge[1:] |= ids[1:] != ids[:-1]
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    mixed[edge] = 255
    panel = Image.fromarray(mixed.astype(np.uint8))
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default(12)
    for number, label in enumerate(labels, 1):
        rows, columns = np.nonzero(ids == number)
        if len(rows) > ROOM:
            # the segment's pixel nearest its middle: unlike the middle itself, it lies inside
            middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
            at = (int(columns[middle]), int(rows[middle]))
            pen.text(at, categories[label].name, "white", font, anchor="mm", stroke_width=2, stroke_fill="black")
    return panel


def shade(category: Any, index: int) -> tuple[int, ...]:
    """The colour of a class; things lighter or darker, so that neighbours can be told apart."""
    factor = (1.0, 0.75, 1.25, 0.6, 1.1)[index % 5] if category.isthing else 1.0
    return tuple(min(int(channel * factor), 255) for channel in category.color)
