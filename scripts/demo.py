"""The demo: train Mask2Former, PRO-SCALE and ECO-M2F's parent, all small, on procedural scenes; compare their exits.

Leaves demo/table.md, demo/table.csv and demo/pictures. What is trained already is not trained again.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from src.config.build import build_run
from src.config.command_line import configure, quote_path
from src.config.saved_settings import saved_overrides
from src.jobs.job import Job
from src.jobs.results import scores_of
from src.jobs.running import run_all
from src.models.postprocess import Frame
from src.painting import Layer, paint, photo_of, predicted_layer, side_by_side, true_segments
from src.records.csv_file import write_csv
from src.records.markdown import markdown_table
from src.system.atomic import atomic_write, write_text

MODELS = {"Mask2Former": "mask2former_shapes", "PRO-SCALE": "proscale_shapes", "ECO-M2F": "eco_parent_shapes"}
PICTURES = 8

Exit = tuple[str, int]  # of a model, at a depth


def main() -> None:
    """Train, evaluate, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where results go (default: demo)")
    parser.add_argument("--steps", type=int, default=800, help="training steps of each model (default: 800)")
    parser.add_argument("--num-timed", type=int, default=50, help="scenes that are timed (default: 50)")
    parser.add_argument("overrides", nargs="*", help="settings of all trainings, for example data.val.num_scenes=20")
    arguments = parser.parse_args()
    if min(arguments.steps, arguments.num_timed) < 1:
        parser.error(f"--steps {arguments.steps} --num-timed {arguments.num_timed}: expected 1 or more of each")

    jobs = []
    for name, experiment in MODELS.items():  # a changed command line would repeat a finished training
        folder = arguments.folder / name
        settings = [f"+experiment={experiment}", f"trainer.max_steps={arguments.steps}", *arguments.overrides]
        command = ["src.train", *settings, f"hydra.run.dir={folder}", "data.num_workers=0"]
        jobs.append(Job(name, command, folder, steps=arguments.steps))
    if failed := run_all(jobs, at_once=len(jobs)):
        sys.exit("\n".join(f"error: training {name}: {why}" for name, why in failed.items()))
    models = {name: load(arguments.folder / name) for name in MODELS}
    scenes = next(iter(models.values())).data.val_scenes  # held out, the same for all models
    seconds = time_interleaved(models, scenes, arguments.num_timed)
    table = tabulate(arguments.folder, models, seconds)
    pictures = save_pictures(arguments.folder / "pictures", models, scenes)
    Console().print(table)
    print(f"\n{arguments.folder}/table.md, table.csv and {len(pictures)} pictures: {pictures[0]} ...")


def load(folder: Path, *settings: str) -> Any:
    """Build the run of a folder, (task, data, trainer), with the weights of its last checkpoint and other settings."""
    weights = f"model.weights={folder}/checkpoints/last.ckpt"
    overrides = saved_overrides([weights, *settings], setting="model.weights")
    overrides += [f"paths.run={folder}", "callbacks=[]", "~logger"]
    run = build_run(configure([quote_path(override) for override in overrides]))
    run.task.eval()
    return run


@torch.no_grad()
def time_interleaved(models: Mapping[str, Any], scenes: Any, num_scenes: int) -> dict[Exit, float]:
    """Return median seconds per image, network and panoptic segments, one image at a time, the exits taking turns."""
    torch.set_num_threads(1)  # waiting threads would add noise
    taken: dict[Exit, list[float]] = {
        (name, depth): [] for name, run in models.items() for depth in run.task.model.exits
    }
    chance = random.Random(0)
    for i in range(min(num_scenes, len(scenes))):
        image = scenes[i].image  # drawn before the clock starts
        for name, depth in chance.sample(list(taken), len(taken)):  # the first one finds cold caches
            started = time.perf_counter()
            segment(models[name].task, image, depth)
            taken[name, depth].append(time.perf_counter() - started)
    return {key: statistics.median(times) for key, times in taken.items()}


def segment(task: Any, image: torch.Tensor, depth: int) -> None:
    """Run an image (3, h, w) up to one exit, including panoptic post-processing."""
    images = task.model.preprocess([image])
    ((prediction,),) = task.model(images, [depth], last_only=True).values()
    frame = Frame(padded=images.shape[-2:], resized=image.shape[-2:], original=image.shape[-2:])
    task.evaluations[f"exit{depth}"].postprocess.panoptic(prediction, 0, frame)


def tabulate(folder: Path, models: Mapping[str, Any], seconds: Mapping[Exit, float]) -> Table:
    """Write the comparison, a row for each exit, as Markdown and CSV; return it as a table to print."""
    header = ["model", "schedule", "exit", "PQ", "things", "stuff", "encoder GFLOPs", "total GFLOPs", "s / image"]
    rows = []
    for name, run in models.items():
        schedule = " ".join(map(str, run.task.hparams["config"]["schedule"]))
        for depth, scores in scores_of(folder / name).items():
            quality = [f"{scores[key]:.1f}" for key in ("pq", "pq_things", "pq_stuff")]
            cost = [f"{scores[key]:.4f}" for key in ("encoder_gflops", "total_gflops")]
            rows.append([name, schedule, depth, *quality, *cost, f"{seconds[name, int(depth)]:.4f}"])
    write_csv([dict(zip(header, row, strict=True)) for row in rows], folder / "table.csv")
    write_text(markdown_table(header, rows) + "\n", folder / "table.md")
    table = Table(*header, box=SIMPLE, caption="held-out scenes; seconds: medians, one thread, the exits taking turns")
    table.columns[0].min_width = max(map(len, models))
    for row in rows:
        table.add_row(*row)
    return table


def save_pictures(folder: Path, models: Mapping[str, Any], scenes: Any) -> list[Path]:
    """Save the predictions of every exit for the first scenes."""
    files = [folder / f"{number:02d}.png" for number in range(min(PICTURES, len(scenes)))]
    for number, file in enumerate(files):
        with atomic_write(file) as part:
            draw(scenes[number], models).save(part)
    return files


def draw(scene: Any, models: Mapping[str, Any]) -> Image.Image:
    """Return an image, its truth and the predictions of every exit, side by side."""
    size = scene.image.shape[-2:]
    categories = next(iter(models.values())).task.categories
    layers: dict[str, Layer] = {"truth": true_segments(scene.truth)}
    for name, run in models.items():
        for answer in run.task.answers(scene.image, size):
            layers[f"{name}, exit {answer.exit}"] = predicted_layer(answer, size)
    photo = photo_of(scene.image, size)
    return side_by_side({"image": photo, **{title: paint(photo, some, categories) for title, some in layers.items()}})


if __name__ == "__main__":
    main()
