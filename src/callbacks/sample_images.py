"""Images, their truth and the answer of every exit side by side, as one looks at them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from src.painting import Segments, paint, photo_of, predicted_segments, side_by_side, true_segments
from src.system.atomic import atomic_write

MOST_LABELS = 255  # of W&B's masks, which have 8 bits; where there are more classes, the last one stands for the rest


class Picture(NamedTuple):
    """One image as it was answered."""

    name: str
    taken: int | None  # the exit that a gate sent it to
    photo: Image.Image
    layers: dict[str, Segments]  # truth and exits, by title, at the size of the photo

    def sheet(self, categories: Sequence[Any]) -> Image.Image:
        """All of it in panels."""
        painted = {title: paint(self.photo, segments, categories) for title, segments in self.layers.items()}
        return side_by_side({"image": self.photo, **painted})


class Pictures(lightning.Callback):
    """Saves `count` images of each validation, over those of the one before.

    They are the first ones, or, where a gate chooses exits, those that left first and last.
    """

    def __init__(self, folder: str, count: int = 8):
        self.folder = Path(folder)
        self.count = count
        self.pictures: list[Picture] = []

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        task: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take what is wanted; of other images nothing is computed."""
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        gated = "gflops" in outputs
        for place, answer in enumerate(outputs["answers"]):
            taken = answer.exit if gated else None
            wanted = extremes([*(one.taken or 0 for one in self.pictures), taken or 0], self.count)
            if len(self.pictures) in wanted:
                with trainer.precision_plugin.forward_context():
                    picture = take(task, batch, place, taken)
                self.pictures = [[*self.pictures, picture][kept] for kept in wanted]

    def on_validation_end(self, trainer: lightning.Trainer, task: Any) -> None:
        """Save the pictures, those that left first first, and hand them to W&B, if it listens."""
        pictures = sorted(self.pictures, key=lambda picture: picture.taken or 0)
        self.pictures = []
        for number, picture in enumerate(pictures):
            name = Path(picture.name).stem.replace(" ", "_")
            with atomic_write(self.folder / f"{number:02d}_{name}.png") as part:
                picture.sheet(task.categories).save(part)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and pictures:
                captions, masks = [caption(picture) for picture in pictures], masks_of(pictures, task.categories)
                photos: list[Any] = [picture.photo for picture in pictures]
                logger.log_image("pictures", photos, trainer.global_step, caption=captions, masks=masks)


def extremes(depths: Sequence[int], count: int) -> list[int]:
    """Places of the `count` images that left first and last, half and half, of equal ones the first, in order."""
    order = sorted(range(len(depths)), key=lambda place: depths[place])
    first = order[: count - count // 2]
    last = sorted(order[len(first) :], key=lambda place: (-depths[place], place))[: count // 2]
    return sorted(first + last)


def take(task: Any, batch: Any, place: int, taken: int | None) -> Picture:
    """One image of a batch, answered by every exit."""
    image, truth = batch.images[place], batch.truths[place]
    size = truth.segments.shape[-2:]
    photo = photo_of(image, size)
    layers = {"truth": true_segments(truth).resized(photo.size)}
    for answer in task.answers(image, size):
        title = f"exit {answer.exit}{', taken' * (answer.exit == taken)}"
        layers[title] = predicted_segments(answer).resized(photo.size)
    return Picture(batch.names[place], taken, photo, layers)


def caption(picture: Picture) -> str:
    """What an image is called, and where it left."""
    return picture.name if picture.taken is None else f"{picture.name}, exit {picture.taken}"


def masks_of(pictures: Sequence[Picture], categories: Sequence[Any]) -> list[dict[str, Any]]:
    """Class masks as W&B takes them: layers that one can switch on and off, with the names of the classes."""
    names = {0: "nothing", **{number: category.name for number, category in enumerate(categories[:MOST_LABELS], 1)}}
    if len(categories) > MOST_LABELS:
        names[MOST_LABELS] = f"one of the last {len(categories) - MOST_LABELS + 1} classes"
    return [
        {
            title.partition(",")[0]: {"mask_data": segments.classes().clip(max=MOST_LABELS), "class_labels": names}
            for title, segments in picture.layers.items()
        }
        for picture in pictures
    ]
