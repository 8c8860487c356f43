"""Answers as files: overlays, panoptic PNGs and JSON in COCO's form, instances as run lengths, semantic PNGs, exits.

Letters: H x W pixels of a photo.
"""

import csv
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image
from torch import Tensor

from src.data.export import colors_of, save_map
from src.data.formats.json_file import Entry
from src.data.targets import Category
from src.painting import paint, predicted_segments
from src.prediction.enlarging import Enlarging
from src.prediction.inputs import Shot
from src.prediction.video import Recorder, rate
from src.system.atomic import atomic_write

KINDS = ("overlays", "panoptic", "instances", "semantic")
LONGEST = 4096  # side of an overlay, pixels
LEVELS = 255  # of 8 bits


class PredictionWriter:
    """A folder that fills, and keeps what is finished whatever ends it; what stands there is whole.

    Nothing is kept in memory: files that grow are called `NAME.part` until the end, and are whole after every answer.

    Args:
        folder: gets overlays/NAME.jpg, or .mp4 of a video; panoptic/NAME.png, R + 256 G + 65536 B the segment's number,
            and panoptic.json; instances.json, COCO's results; semantic/NAME.png, category ids; and exits.csv.
        outputs: which of these; what a model does not answer is left out.
    """

    def __init__(self, folder: str, outputs: Sequence[str], categories: Sequence[Category]):
        self.folder, self.outputs, self.categories = Path(folder), list(outputs), list(categories)
        self.open = ExitStack()
        self.recording = ExitStack()  # of one video
        self.video: str | None = None
        self.lists: dict[str, JsonList] = {}

    def __enter__(self) -> "PredictionWriter":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.exits = self.growing("exits.csv", newline="")
        self.row(("image_id", "name", "file", "exit", "gflops"))
        return self

    def __exit__(self, *raised: Any) -> None:
        with self.open:
            self.recording.__exit__(*raised)

    def write(self, shot: Shot, photo: Tensor, answer: Any) -> None:
        """Keep one answer, of a photo (3, H, W) uint8 RGB; frames of a video come in order and together.

        Maps of the answer may be smaller than the photo; in files they have its size.
        """
        if shot.video != self.video:
            self.recording.close()
        if "overlays" in self.outputs:
            self.overlay(shot, photo, answer)
        self.video = shot.video
        if "panoptic" in self.outputs and answer.panoptic is not None:
            self.panoptic(shot, answer.panoptic, enlarging(answer.panoptic.ids, photo))
        if "instances" in self.outputs and answer.instances is not None:
            results = self.listing("instances.json", "[", "]")
            larger = enlarging(answer.instances.masks, photo)
            for entry in instances(shot.image_id, answer.instances, self.categories, larger):
                results.append(entry)
        if "semantic" in self.outputs and answer.semantic is not None:
            ids = np.array([category.id for category in self.categories])
            ids = ids.astype(np.uint8 if ids.max() <= LEVELS else np.uint16)
            pixels = enlarging(answer.semantic, photo).map(ids[answer.semantic.cpu().numpy()])
            save_map(pixels, self.folder / "semantic" / f"{shot.name}.png")
        self.row((shot.image_id, shot.name, shot.file, answer.exit, answer.gflops))

    def row(self, values: Sequence[object]) -> None:
        """Add a row to the exits."""
        csv.writer(self.exits).writerow(values)
        self.exits.flush()

    def overlay(self, shot: Shot, photo: Tensor, answer: Any) -> None:
        """Paint over the photo, or over the frame of a video."""
        picture = Image.fromarray(photo.permute(1, 2, 0).cpu().numpy())
        picture.thumbnail((LONGEST, LONGEST))
        segments = predicted_segments(answer)
        rows, columns = Enlarging(segments.ids.shape, photo.shape[-2:]).seen_at(picture.size[::-1])
        picture = paint(picture, segments._replace(ids=segments.ids[rows][:, columns]), self.categories)
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
        """The map of segments, and what they are."""
        ids = panoptic.ids.cpu().numpy()
        save_map(larger.map(colors_of(ids)), self.folder / "panoptic" / f"{shot.name}.png")
        categories = json.dumps(
            [category._asdict() | {"isthing": int(category.isthing)} for category in self.categories]
        )
        annotations = self.listing("panoptic.json", f'{{"categories": {categories},\n"annotations": [', "]}")
        annotations.append(
            {
                "image_id": shot.image_id,
                "file_name": f"{shot.name}.png",
                "segments_info": segments(
                    ids, panoptic.labels.tolist(), panoptic.scores.tolist(), self.categories, larger
                ),
            }
        )

    def growing(self, name: str, newline: str | None = None) -> TextIO:
        """A file that grows beside its place, and takes it with all that is finished when this ends, however."""
        part = self.folder / f"{name}.part"
        self.open.callback(part.replace, self.folder / name)
        return self.open.enter_context(part.open("w", newline=newline, encoding="utf-8", errors="surrogateescape"))

    def listing(self, name: str, head: str, tail: str) -> "JsonList":
        """A JSON file that grows."""
        if name not in self.lists:
            self.lists[name] = JsonList(self.growing(name), head, tail)
        return self.lists[name]


class JsonList:
    """A JSON file, a list between `head` and `tail`, that is whole after every entry."""

    def __init__(self, stream: TextIO, head: str, tail: str):
        self.stream, self.tail, self.separator = stream, tail, "\n"
        stream.write(head)
        self.end = stream.tell()
        stream.write(tail)

    def append(self, entry: Entry) -> None:
        """Write one more entry over the tail."""
        self.stream.seek(self.end)
        self.stream.write(self.separator + json.dumps(entry))
        self.end, self.separator = self.stream.tell(), ",\n"
        self.stream.write(self.tail)
        self.stream.flush()


def enlarging(maps: Tensor, photo: Tensor) -> Enlarging:
    """From maps (..., h, w) to a photo (3, H, W)."""
    return Enlarging(maps.shape[-2:], photo.shape[-2:])


def segments(
    ids: np.ndarray,
    labels: Sequence[int],
    scores: Sequence[float],
    categories: Sequence[Category],
    larger: Enlarging,
) -> list[Entry]:
    """The entry of every segment of a map (h, w) in which the n-th is n; areas and boxes are those of the photo."""
    entries = []
    areas = larger.areas(ids, len(labels))
    for number, (label, score, area) in enumerate(zip(labels, scores, areas, strict=True), 1):
        if not area:  # of several that were made of one
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


def instances(image_id: int, found: Any, categories: Sequence[Category], larger: Enlarging) -> list[Entry]:
    """The entries of instances that have a pixel, in the form of COCO's results, the surest first.

    Without a box: pycocotools would take its area for that of the mask, and tell small from large by it.
    """
    entries = []
    for place in found.scores.argsort(descending=True).tolist():
        mask = found.masks[place].cpu().numpy()
        if mask.any():
            entries.append(
                {
                    "image_id": image_id,
                    "category_id": categories[int(found.labels[place])].id,
                    "score": float(found.scores[place]),
                    "segmentation": larger.packed(mask),
                }
            )
    return entries
