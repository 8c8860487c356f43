"""Compare exports with torch on photos: logits and panoptic maps of every exit, alone and in mixed batches.

python -m scripts.same_logits EXPORT... --photos photos/ --weights runs/NAME/TIME/checkpoints/best.ckpt
python -m scripts.same_logits EXPORT --photos photos/ --weights SOURCE +experiment=mask2former_coco 'exits=[2,4,6]'

Both get the same pixels, prepared by runtime.py. In a mixed batch each photo leaves at another exit than its
neighbours. The exit status is 1 if a logit differs by more than 1e-3, or a map in more than 0.1 % of its pixels. A mask
logit next to 0 may be rounded to either side of it, which the decoder's masked attention then does or does not look at:
such photos differ by more, at single pixels.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from scripts.tables import of_rows
from src.config.errors import MISTAKES, reason
from src.exporting.runtime import Choice, Frame, Left, Router, bounded, files_of, read_photo
from src.predictor import Predictor
from src.records.csv_file import write_csv

LOGITS, PIXELS = 1e-3, 1e-3  # what may differ: a logit, and the share of a map's pixels
BATCH = 4


class Photo(NamedTuple):
    """A photo as the graphs get it, and what torch gives for it."""

    image: np.ndarray  # (3, h, w) normalised and padded
    graph: dict[str, Any]  # the entry of the manifest that takes it
    frame: Frame
    expected: dict[int, Left]  # by exit


class Difference(NamedTuple):
    """How far the outputs of onnxruntime and torch are apart."""

    class_logits: float
    mask_logits: float
    pixels: float  # share of the map of panoptic segments, or of classes


class InTurn(Choice):
    """The exits of the images of a batch, one after the other, in place of the router's choice."""

    def __init__(self, exits: Sequence[int]):
        self.exits, self.fixed = iter(exits), exits[0]

    def __call__(self, size: Any, scores: Any) -> int:
        return next(self.exits)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", nargs="+", metavar="FOLDER ... SETTING", help="exports, then settings of the model")
    parser.add_argument("--photos", required=True, help="image or folder")
    parser.add_argument("--weights", required=True, help="what was exported: a checkpoint, or published weights")
    parser.add_argument("--images", type=int, default=20, help="how many photos at most (default: %(default)s)")
    parser.add_argument("--csv", type=Path, help="keep the table in this file")
    args = parser.parse_args(arguments)
    settings = [word for word in args.exports if "=" in word]
    try:
        predictor = Predictor.load(args.weights, *settings, "trainer.accelerator=cpu")
        files = list(islice(files_of(args.photos), args.images))
        rows = [row for word in args.exports if "=" not in word for row in compared(Path(word), predictor, files)]
        if args.csv:
            write_csv(rows, args.csv)
    except MISTAKES as error:
        sys.exit(f"error: {reason(error)}")
    print(of_rows(rows))
    same = all(max(row["class"], row["mask"]) <= LOGITS and row["other pixels"] <= PIXELS for row in rows)
    sys.exit(0 if same else 1)


def compared(folder: Path, predictor: Predictor, files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield the largest differences of an export from torch, by exit and batch."""
    router, console = Router(folder), Console(stderr=True)
    found: dict[tuple[int, str], list[Difference]] = {}
    same_sized: dict[tuple[int, ...], list[Photo]] = {}
    for file in track(files, folder.name, console=console, transient=True):
        photo = prepared(router, predictor, file)
        for depth in router.manifest["exits"]:
            note(found, "1", router, [photo], [depth])
        waiting = same_sized.setdefault(photo.image.shape, [])
        waiting.append(photo)
        if len(waiting) == BATCH:
            exits = islice(cycle(router.manifest["exits"]), len(found), len(found) + BATCH)  # not always the first ones
            note(found, f"{BATCH}, mixed exits", router, same_sized.pop(photo.image.shape), list(exits))
    for (depth, batch), some in sorted(found.items(), key=lambda one: one[0][::-1]):
        classes, masks, pixels = map(max, zip(*some, strict=True))
        above = sum(max(one.class_logits, one.mask_logits) > LOGITS for one in some)
        yield {
            "export": folder.name, "exit": depth, "batch": batch, "photos": len(some), "above 1e-3": above,
            "class": classes, "mask": masks, "other pixels": pixels,
        }  # fmt: skip


@torch.no_grad()
def prepared(router: Router, predictor: Predictor, file: Path) -> Photo:
    """Return a photo with the answers of torch."""
    pixels = read_photo(file)
    resized, padded, graph = router.fit(pixels.shape[:2])
    image = router.prepared(pixels, resized, padded)
    made: dict[int, Any] = predictor.task.model(
        torch.from_numpy(image)[None], exits=router.manifest["exits"], last_only=True
    )
    expected = {
        depth: Left(depth, classes[0].numpy(), masks[0].numpy(), 0.0) for depth, ((classes, masks),) in made.items()
    }
    return Photo(image, graph, Frame(padded, resized, bounded(pixels.shape[:2])), expected)


def note(
    found: dict[tuple[int, str], list[Difference]], batch: str, router: Router, photos: list[Photo], exits: list[int]
) -> None:
    """Run photos of one size as a batch, each to its exit, and note the differences by exit and batch."""
    images = np.stack([photo.image for photo in photos])
    for photo, left in zip(photos, router.forward(images, photos[0].graph, InTurn(exits)), strict=True):
        found.setdefault((left.exit, batch), []).append(difference(router, photo, left))


def difference(router: Router, photo: Photo, left: Left) -> Difference:
    """Return how far the outputs for a photo are from torch's; both are post-processed alike."""
    wanted = photo.expected[left.exit]
    classes, masks = (
        float(np.abs(getattr(left, name) - getattr(wanted, name)).max()) for name in ("class_logits", "mask_logits")
    )
    mine, theirs = (map_of(router.postprocess(*logits[1:3], photo.frame)) for logits in (left, wanted))
    return Difference(classes, masks, float((mine != theirs).mean()))


def map_of(answer: dict[str, Any]) -> np.ndarray:
    """Return the map (H, W) of an answer: of its panoptic segments, of its classes, or how many instances cover it."""
    if answer["panoptic"] is not None:
        return answer["panoptic"].ids
    return answer["semantic"] if answer["semantic"] is not None else answer["instances"].masks.sum(0)


if __name__ == "__main__":
    main()
