"""Write predictions: overlays, COCO panoptic PNGs and JSON, COCO results of objects, semantic PNGs, and exits.csv.

Letters: h x w pixels of a prediction, H x W pixels of its image.
"""

import csv
import json
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image
from torch import Tensor

from src.data.export import colors_of, save_map
from src.data.formats.json_file import Entry
from src.data.targets import Category
from src.painting import predicted_layer
from src.prediction.enlarging import Enlarging
from src.prediction.inputs import Shot
from src.prediction.video import Recorder, rate
from src.system.atomic import atomic_write

MAX_OVERLAY_SIDE = 4096  # pixels


class PredictionWriter:
    """A streaming writer for predictions: all files are valid after each `write`, and memory use is constant.

    Files that grow are called `NAME.part` until the writer exits, normally or by an exception.

    Args:
        folder: receives overlays/NAME.jpg (.mp4 for a video); panoptic/NAME.png, where R + 256 G + 65536 B is the
            number of the segment, and panoptic.json; instances.json or boxes.json in COCO's results format;
            semantic/NAME.png with category ids; and exits.csv.
        outputs: some of overlays, panoptic, instances, semantic and boxes; predictions must have them.
    """

    def __init__(self, folder: str, outputs: Sequence[str], categories: Sequence[Category]):
        self.folder, self.outputs, self.categories = Path(folder), list(outputs), list(categories)
        self.open = ExitStack()
        self.recording = ExitStack()  # the overlay video being written
        self.video: str | None = None
        self.lists: dict[str, JsonList] = {}

    def __enter__(self) -> "PredictionWriter":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.exits = self.growing("exits.csv", newline="")
        self.row(("image_id", "name", "file", "exit", "gflops", "ms"))
        return self

    def __exit__(self, *raised: Any) -> None:
        with self.open:
            self.recording.__exit__(*raised)

    def write(self, shot: Shot, photo: Tensor, answer: Any) -> None:
        """Write the prediction `answer` of one image (3, H, W) uint8 RGB; frames of a video must come in order.

        Maps of a prediction may be smaller than its image; they are written at the size of the image.
        """
        if shot.video != self.video:
            self.recording.close()
        if "overlays" in self.outputs:
            self.overlay(shot, photo, answer)
        self.video = shot.video
        if "panoptic" in self.outputs:
            self.panoptic(shot, answer.panoptic, enlarging(answer.panoptic.ids, photo))
        if "instances" in self.outputs:
            results = self.listing("instances.json", "[", "]")
            larger = enlarging(answer.instances.masks, photo)
            for entry in instances(shot.image_id, answer.instances, self.categories, larger):
                results.append(entry)
        if "semantic" in self.outputs:
            ids = np.array([category.id for category in self.categories])
            ids = ids.astype(np.uint8 if ids.max() <= np.iinfo(np.uint8).max else np.uint16)
            pixels = enlarging(answer.semantic, photo).map(ids[answer.semantic.cpu().numpy()])
            save_map(pixels, self.folder / "semantic" / f"{shot.name}.png")
        if "boxes" in self.outputs:
            results = self.listing("boxes.json", "[", "]")
            for entry in boxes(shot.image_id, answer.boxes, self.categories):
                results.append(entry)
        self.row((shot.image_id, shot.name, shot.file, answer.exit, answer.gflops, answer.ms))

    def row(self, values: Sequence[object]) -> None:
        """Append a row to exits.csv."""
        csv.writer(self.exits).writerow(values)
        self.exits.flush()

    def overlay(self, shot: Shot, photo: Tensor, answer: Any) -> None:
        """Write the image, or a frame of the video, with its segments drawn over it."""
        picture = Image.fromarray(photo.permute(1, 2, 0).cpu().numpy())
        picture.thumbnail((MAX_OVERLAY_SIDE, MAX_OVERLAY_SIDE))
        layer = predicted_layer(answer, photo.shape[-2:])
        picture = layer.resized(picture.size, partial(shrunk, photo.shape[-2:])).over(picture, self.categories)
        if shot.video is None:
            with atomic_write(self.folder / "overlays" / f"{shot.name}.jpg", durable=False) as part:
                picture.save(part, quality=90)
            return
        if shot.video != self.video:
            part = self.recording.enter_context(atomic_write(self.folder / "overlays" / f"{shot.video}.mp4"))
            self.recorder = Recorder(part, picture.size, rate(shot.file))
            self.recording.callback(self.recorder.close)
        self.recorder.write(picture)

    def panoptic(self, shot: Shot, panoptic: Any, larger: Enlarging) -> None:
        """Write the map of segments and their entry in panoptic.json."""
        ids = panoptic.ids.cpu().numpy()
        save_map(larger.map(colors_of(ids)), self.folder / "panoptic" / f"{shot.name}.png")
        categories = [category._asdict() | {"isthing": int(category.isthing)} for category in self.categories]
        head = f'{{"categories": {json.dumps(categories)},\n"annotations": ['
        found = segments(ids, panoptic.labels.tolist(), panoptic.scores.tolist(), self.categories, larger)
        entry = {"image_id": shot.image_id, "file_name": f"{shot.name}.png", "segments_info": found}
        self.listing("panoptic.json", head, "]}").append(entry)

    def growing(self, name: str, newline: str | None = None) -> TextIO:
        """Open NAME.part, which is renamed to NAME when the writer exits."""
        part = self.folder / f"{name}.part"
        self.open.callback(part.replace, self.folder / name)
        return self.open.enter_context(part.open("w", newline=newline, encoding="utf-8", errors="surrogateescape"))

    def listing(self, name: str, head: str, tail: str) -> "JsonList":
        """Return the open JSON file of that name; the first call opens it."""
        if name not in self.lists:
            self.lists[name] = JsonList(self.growing(name), head, tail)
        return self.lists[name]


class JsonList:
    """A JSON list between `head` and `tail`, written entry by entry; the file is valid JSON after each entry."""

    def __init__(self, stream: TextIO, head: str, tail: str):
        self.stream, self.tail, self.separator = stream, tail, "\n"
        stream.write(head)
        self.end = stream.tell()
        stream.write(tail)

    def append(self, entry: Entry) -> None:
        """Overwrite the tail with one more entry and the tail."""
        self.stream.seek(self.end)
        self.stream.write(self.separator + json.dumps(entry))
        self.end, self.separator = self.stream.tell(), ",\n"
        self.stream.write(self.tail)
        self.stream.flush()


def enlarging(maps: Tensor, photo: Tensor) -> Enlarging:
    """Return the enlargement from maps (..., h, w) to an image (3, H, W)."""
    return Enlarging(maps.shape[-2:], photo.shape[-2:])


def shrunk(large: Sequence[int], ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a map (h, w) as it is seen at a size of (width, height) after enlarging it to `large`, (height, width)."""
    rows, columns = Enlarging(ids.shape, large).seen_at(size[::-1])
    return ids[rows][:, columns]


def segments(
    ids: np.ndarray, labels: Sequence[int], scores: Sequence[float], categories: Sequence[Category], larger: Enlarging
) -> list[Entry]:
    """Return panoptic.json's segments of a map (h, w) of numbers from 1; areas and boxes are in pixels of the image."""
    entries = []
    areas = larger.areas(ids, len(labels))
    for number, (label, score, area) in enumerate(zip(labels, scores, areas, strict=True), 1):
        if not area:  # overlapping segments have taken all its pixels
            continue
        category = categories[label]
        entries.append(
            {
                "id": number,
                "category_id": category.id,
                "isthing": int(category.isthing),
                "iscrowd": 0,
                "area": area,
                "bbox": larger.box(ids == number),
                "score": score,
            }
        )
    return entries


def instances(image_id: int, predicted: Any, categories: Sequence[Category], larger: Enlarging) -> list[Entry]:
    """Return non-empty instances as entries of COCO's results format, by descending score.

    They have no box: pycocotools would use its area, not the mask's, to tell small objects from large ones.
    """
    entries = []
    for index in predicted.scores.argsort(descending=True).tolist():
        mask = predicted.masks[index].cpu().numpy()
        if mask.any():
            entries.append(
                {
                    "image_id": image_id,
                    "category_id": categories[int(predicted.labels[index])].id,
                    "score": float(predicted.scores[index]),
                    "segmentation": larger.packed(mask),
                }
            )
    return entries


def boxes(image_id: int, predicted: Any, categories: Sequence[Category]) -> list[Entry]:
    """Return non-empty boxes as entries of COCO's results format, by descending score."""
    entries = []
    for index in predicted.scores.argsort(descending=True).tolist():
        left, top, right, bottom = predicted.boxes[index].tolist()
        if right > left and bottom > top:
            entries.append(
                {
                    "image_id": image_id,
                    "category_id": categories[int(predicted.labels[index])].id,
                    "score": float(predicted.scores[index]),
                    "bbox": [left, top, right - left, bottom - top],
                }
            )
    return entries
