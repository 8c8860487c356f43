"""Compare the latency of trained models: every exit and every gate, taking turns on each image.

python -m scripts.latency photos/ --model Mask2Former runs/A/TIME/checkpoints/best.ckpt
    --model PRO-SCALE runs/B/TIME/checkpoints/best.ckpt --model ECO-M2F PARENT gate=GATE

From a preprocessed image, alone, to the last prediction; neither reading the image nor post-processing. Numbers are
medians over rounds of means over images, and ratios to the first row. Threads: OMP_NUM_THREADS=1 before the command.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table
from torch import Tensor

from src.config.errors import MISTAKES, reason
from src.prediction.inputs import Inputs
from src.predictor import Predictor
from src.records.csv_file import write_csv
from src.records.provenance import made_by
from src.system.stopwatch import clock_of, latencies

Models = dict[str, Predictor]
Images = dict[str, Tensor]  # one image, as each model takes it: (1, 3, H, W)
Ways = dict[tuple[str, str], Callable[[Images], Any]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", help="images, folders or patterns")
    parser.add_argument(
        "--model",
        dest="models",
        nargs="+",
        action="append",
        required=True,
        metavar="NAME FILE [SETTING ...]",
        help="its name in the table, a checkpoint, and settings as of src.predict, such as gate=FILE; once a model",
    )
    parser.add_argument("--images", type=int, default=20, help="how many images at most (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often each image is predicted (default: %(default)s)"
    )
    parser.add_argument("--csv", type=Path, help="keep the table in this file")
    args = parser.parse_args(arguments)
    if min(args.images, args.rounds) < 1:
        parser.error(f"--images {args.images} --rounds {args.rounds}: expected 1 or more of each")
    if short := next((" ".join(model) for model in args.models if len(model) < 2), None):
        parser.error(f"--model {short}: expected a name and a checkpoint")
    try:
        inputs = Inputs(args.photos)
        photos = [photo for _, photo in islice(inputs, args.images)]
        if not photos:
            raise ValueError(inputs.broken[0])
        models = {name: Predictor.load(*rest) for name, *rest in args.models}
        rows = timed(models, ways_of(models), photos, args.rounds)
        if args.csv:
            write_csv(rows, args.csv)
    except MISTAKES as error:
        sys.exit(f"error: {reason(error)}")
    table = Table(*("model", "left at"), *(Column(name, justify="right") for name in ("ms / image", "share")))
    for row in rows:
        table.add_row(row["model"], row["way"], f"{row['latency_ms']:.4g}", f"{row['ratio']:.3f}")
    table.caption = f"{rows[0]['images']} images, {rows[0]['device']}, torch {rows[0]['torch']}"
    Console().print(table)


def ways_of(models: Models) -> Ways:
    """Return the prediction function of each exit and gate by the names of model and policy."""
    return {
        (name, row): partial(answer, predictor, name, way)
        for name, predictor in models.items()
        for row, way in predictor.task.ways().items()
    }


def timed(models: Models, ways: Ways, photos: Sequence[Tensor], rounds: int) -> list[dict[str, Any]]:
    """Return a row for each exit and gate: milliseconds per image, and the ratio to the first row."""
    images = ({name: prepared(predictor, photo) for name, predictor in models.items()} for photo in photos)
    device = next(iter(models.values())).fabric.device
    bar = track(images, "images", len(photos), console=Console(stderr=True), transient=True)
    seconds = latencies(ways, bar, rounds, nullcontext, clock_of(device))
    first = next(iter(seconds.values()))
    return [
        {
            "model": name,
            "way": row,
            "latency_ms": 1000 * one,
            "ratio": one / first,
            "images": len(photos),
            **made_by(device),
        }
        for (name, row), one in seconds.items()
    ]


def prepared(predictor: Predictor, photo: Tensor) -> Tensor:
    """Preprocess an image (3, H, W) for a model: (1, 3, h, w) on its device."""
    task = predictor.task
    return task.model.preprocess([task.resizes[0].image(photo).to(task.device)])


@torch.no_grad()
def answer(predictor: Predictor, name: str, way: Callable[[Tensor], Any], images: Images) -> None:
    """Predict; this is what is timed."""
    with predictor.fabric.autocast():
        way(images[name])


if __name__ == "__main__":
    main()
