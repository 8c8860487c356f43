"""Score exports on the validation images of a data set, at every exit and with their gate, by the router they ship.

python -m scripts.score_export exports/float exports/int8 ckpt_path=runs/NAME/TIME/checkpoints/best.ckpt
python -m scripts.score_export exports/float data=coco_panoptic data.root=data/coco --images 500

Settings name the data, as for src.evaluate; a checkpoint brings those of its training. Prints a table, and writes
it to FILE with --csv FILE. GFLOPs are means over images, ms the time of the graphs for one image at a time.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from rich.console import Console
from rich.progress import track

from scripts.tables import of_rows
from src.config.command_line import configure, quote_path
from src.config.errors import MISTAKES, reason
from src.config.saved_settings import with_saved
from src.data.scenes import Scenes
from src.exporting.runtime import Answer, Router
from src.models.postprocess import Instances, Panoptic, Postprocess
from src.records.csv_file import write_csv
from src.tasks.evaluation import Evaluation, ImagePrediction

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exports", nargs="+", metavar="FOLDER ... SETTING", help="exports, then settings of the data")
    parser.add_argument("--images", type=int, help="only so many images (default: all)")
    parser.add_argument("--threads", type=int, help="of the router (default: one for each CPU)")
    parser.add_argument("--csv", type=Path, help="keep the table in this file")
    args = parser.parse_args(arguments)
    folders = [Path(word) for word in args.exports if "=" not in word]
    settings = [word for word in args.exports if "=" in word]
    try:
        scenes = scenes_of(settings)
        rows = [row for folder in folders for row in scored(folder, scenes, args.images, args.threads)]
        if args.csv:
            write_csv(rows, args.csv)
    except MISTAKES as error:
        sys.exit(f"error: {reason(error)}")
    print(of_rows(rows))


def scenes_of(settings: Sequence[str]) -> Scenes:
    """Return the validation images that the settings of src.evaluate name."""
    typed = with_saved([*settings, "paths.run=."])
    data = instantiate(configure([*map(quote_path, typed)], "evaluate").data, batch_size=1, _convert_="all")
    return data.val_scenes


def scored(folder: Path, scenes: Scenes, count: int | None, threads: int | None) -> Iterator[Row]:
    """Yield a row for each exit of an export, and one for its gate. Raises ValueError for data of other classes."""
    router = Router(folder, threads=threads)
    names = [one["name"] for one in router.manifest["classes"]]
    if names != (expected := [category.name for category in scenes.categories]):
        raise ValueError(f"{folder}: has the classes {names}, and the data {expected}; expected the same")
    ways: dict[str, dict[str, Any]] = {f"exit{depth}": {"exit": depth} for depth in router.manifest["exits"]}
    ways |= {"gate": {}} if router.manifest["gate"] else {}
    for name, way in ways.items():
        yield {"export": folder.name, "left at": name, **scores(router, way, scenes, count, f"{folder.name} {name}")}


def scores(router: Router, way: Mapping[str, Any], scenes: Scenes, count: int | None, title: str) -> Row:
    """Return the scores of one way to leave, in percent, with the mean cost and time of an image."""
    isthing = [category.isthing for category in scenes.categories]
    evaluation = Evaluation(router.manifest["segmentation"], isthing, Postprocess(isthing))
    router.choose_by(**way)
    gflops, ms, number = [], [], min(count or len(scenes), len(scenes))
    samples = islice((scenes[index] for index in range(len(scenes))), number)
    for sample in track(samples, title, number, console=Console(stderr=True), transient=True):
        (answer,) = router([sample.image.permute(1, 2, 0).numpy()])
        evaluation.update(as_tensors(answer), sample.truth, sample.image_id)
        gflops.append(answer.gflops)
        ms.append(answer.ms)
    return {**evaluation.compute(), "GFLOPs": statistics.mean(gflops), "ms": statistics.median(ms), "images": number}


def as_tensors(answer: Answer) -> ImagePrediction:
    """Return an answer of the router as a prediction of ours."""
    tensor = torch.from_numpy
    panoptic, instances, semantic = answer.panoptic, answer.instances, answer.semantic
    return ImagePrediction(
        None if panoptic is None else Panoptic(*map(tensor, panoptic)),
        None if instances is None else Instances(*map(tensor, instances)),
        None if semantic is None else tensor(np.ascontiguousarray(semantic)),
    )


if __name__ == "__main__":
    main()
