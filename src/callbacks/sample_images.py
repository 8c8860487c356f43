"""Sample images with their truth and the prediction of every exit, side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning import Callback, Trainer
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from src.painting import Layer, Outlines, Segments, paint, photo_of, predicted_layer, side_by_side, true_layer
from src.records.run_folder import picture_name
from src.system.atomic import atomic_write

MOST_LABELS = 255  # W&B's masks have 8 bits; with more classes, the last label stands for the rest


class Picture(NamedTuple):
    """One image with its segments or boxes."""

    name: str
    taken: int | None  # the exit that a gate chose
    photo: Image.Image
    layers: dict[str, Layer]  # truth and exits by title, at the size of the photo

    @property
    def caption(self) -> str:
        return self.name if self.taken is None else f"{self.name}, exit {self.taken}"

    def sheet(self, categories: Sequence[Any]) -> Image.Image:
        """Return the image and its painted layers side by side."""
        painted = {title: paint(self.photo, layer, categories) for title, layer in self.layers.items()}
        return side_by_side({"image": self.photo, **painted})


class Pictures(Callback):
    """Saves pictures of `count` images in each validation, in place of those of the validation before.

    These are the first images or, with a gate, those with the shallowest and the deepest exits.
    """

    def __init__(self, folder: str, count: int = 8):
        self.folder = Path(folder)
        self.count = count
        self.pictures: list[Picture] = []

    def on_validation_batch_end(self, trainer: Trainer, task: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Keep the images of a batch that are among the `count` so far; nothing is computed for others."""
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

    def on_validation_end(self, trainer: Trainer, task: Any) -> None:
        """Save the pictures, shallowest exits first, and log them to W&B if it is a logger of this run."""
        pictures = sorted(self.pictures, key=lambda picture: picture.taken or 0)
        self.pictures = []
        for number, picture in enumerate(pictures):
            with atomic_write(self.folder / f"{number:02d}_{picture_name(picture.name)}.png") as part:
                picture.sheet(task.categories).save(part, compress_level=3)  # half the time of 6, a fifth larger
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and pictures:
                captions = [picture.caption for picture in pictures]
                photos: list[Any] = [picture.photo for picture in pictures]
                layers = {form: made for form, of in FORMS.items() if any(made := of(pictures, task.categories))}
                logger.log_image("pictures", photos, trainer.global_step, caption=captions, **layers)


def extremes(depths: Sequence[int], count: int) -> list[int]:
    """Return in order the places of the `count` shallowest and deepest exits, half of each; of equal ones the first."""
    order = sorted(range(len(depths)), key=lambda place: depths[place])
    first = order[: count - count // 2]
    last = sorted(order[len(first) :], key=lambda place: (-depths[place], place))[: count // 2]
    return sorted(first + last)


def take(task: Any, batch: Any, place: int, taken: int | None) -> Picture:
    """Predict one image of a batch at every exit, and return its picture."""
    image, truth = batch.images[place], batch.truths[place]
    size = truth.segments.shape[-2:]
    photo, answers = photo_of(image, size), task.answers(image, size)
    layers = {"truth": true_layer(truth, answers[0], task.categories).resized(photo.size)}
    for answer in answers:
        title = f"exit {answer.exit}, taken" if answer.exit == taken else f"exit {answer.exit}"
        layers[title] = predicted_layer(answer, size).resized(photo.size)
    return Picture(batch.names[place], taken, photo, layers)


def masks_of(pictures: Sequence[Picture], categories: Sequence[Any]) -> list[dict[str, Any]]:
    """Return class masks in W&B's format, a layer for the truth and for each exit; empty for pictures of boxes."""
    names = {0: "nothing", **{number: category.name for number, category in enumerate(categories[:MOST_LABELS], 1)}}
    if len(categories) > MOST_LABELS:
        names[MOST_LABELS] = f"one of the last {len(categories) - MOST_LABELS + 1} classes"
    return [
        {
            title.partition(",")[0]: {"mask_data": layer.classes().clip(max=MOST_LABELS), "class_labels": names}
            for title, layer in picture.layers.items()
            if isinstance(layer, Segments)
        }
        for picture in pictures
    ]


def boxes_of(pictures: Sequence[Picture], categories: Sequence[Any]) -> list[dict[str, Any]]:
    """Return boxes in W&B's format, a layer for the truth and for each exit; empty for pictures of segments."""
    names = {index: category.name for index, category in enumerate(categories)}
    return [
        {
            title.partition(",")[0]: {"box_data": box_data(layer, names), "class_labels": names}
            for title, layer in picture.layers.items()
            if isinstance(layer, Outlines)
        }
        for picture in pictures
    ]


def box_data(layer: Outlines, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return boxes in pixels of the photo, with class, caption and score."""
    found = []
    for number, (label, box) in enumerate(zip(layer.labels, layer.boxes.tolist(), strict=True)):
        score = None if layer.scores is None else layer.scores[number]
        entry = {
            "position": dict(zip(("minX", "minY", "maxX", "maxY"), box, strict=True)),
            "domain": "pixel",
            "class_id": label,
            "box_caption": names[label] if score is None else f"{names[label]} {score:.2f}",
        }
        found.append(entry if score is None else {**entry, "scores": {"score": score}})
    return found


FORMS = {"masks": masks_of, "boxes": boxes_of}  # of layers, as W&B calls them
