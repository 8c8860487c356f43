"""The demo: train Mask2Former and PRO-SCALE, both small, on procedural scenes, and compare them.

Leaves demo/table.md, demo/table.csv and demo/pictures. What is trained already is not trained again.
"""

import argparse
import csv
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image, ImageDraw, ImageFont
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from src.command_line import configure
from src.compose import compose as build
from src.data.module import SegmentationData
from src.jobs import Job, run_all
from src.models.postprocess import Frame

STRIP = 24  # pixels above a model's row of panels, for its name
MODELS = {"Mask2Former": "mask2former_shapes", "PRO-SCALE": "proscale_shapes"}


def main() -> None:
    """Train, evaluate, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where results go (default: demo)")
    parser.add_argument("--steps", type=int, help="training steps, if other than the experiments'")
    parser.add_argument("--num-timed", type=int, default=50, help="scenes that are timed (default: 50)")
    arguments = parser.parse_args()

    settings = {name: [f"+experiment={experiment}"] for name, experiment in MODELS.items()}
    if arguments.steps is not None:
        extra = [f"trainer.max_steps={arguments.steps}", f"validate_every={arguments.steps}"]
        settings = {name: overrides + extra for name, overrides in settings.items()}
    jobs = [job(name, overrides, arguments.folder) for name, overrides in settings.items()]
    if failed := run_all(jobs, at_once=len(jobs)):
        sys.exit("\n".join(f"error: training {name}: {why}" for name, why in failed.items()))
    seconds = time_interleaved(arguments.folder, settings, arguments.num_timed)
    table = tabulate(arguments.folder, settings, seconds)
    pictures = stack_pictures(arguments.folder)
    Console().print(table)
    print(f"\n{arguments.folder}/table.md, table.csv and {len(pictures)} pictures: {pictures[0]} ...")


def job(name: str, overrides: list[str], folder: Path) -> Job:
    """The training of a model."""
    arguments = ["src.train", *overrides, f"hydra.run.dir={folder / name}", "data.num_workers=0"]
    return Job(name, arguments, folder / name, steps=configure(overrides).trainer.max_steps)


@torch.no_grad()
def time_interleaved(folder: Path, settings: dict[str, list[str]], num_scenes: int) -> dict[str, float]:
    """Median seconds per image, network and panoptic segments, one image at a time, the models taking turns."""
    torch.set_num_threads(1)  # threads that wait for each other time the machine, not the model
    tasks: dict[str, Any] = {}
    for name, overrides in settings.items():
        weights = folder / name / "checkpoints/last.ckpt"
        task, data, _ = build(configure([*overrides, f"paths.run={folder / name}", f"model.weights={weights}"]))
        tasks[name] = task.eval()
    scenes = cast(SegmentationData, data).val_scenes
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for i in range(min(num_scenes, len(scenes))):
        image = scenes[i].image  # drawn before the clock starts
        for name, task in tasks.items():
            started = time.perf_counter()
            segment(task, image)
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def segment(task: Any, image: torch.Tensor) -> None:
    """One image (3, h, w) through the model and to panoptic segments."""
    images = task.model.preprocess([image])
    (predictions,) = task.model(images).values()
    (evaluation,) = task.evaluations.values()
    frame = Frame(padded=images.shape[-2:], resized=image.shape[-2:], original=image.shape[-2:])
    evaluation.postprocess.panoptic(predictions[-1], 0, frame)


def tabulate(folder: Path, settings: dict[str, list[str]], seconds: dict[str, float]) -> Table:
    """The comparison, kept as Markdown and CSV."""
    header = ["model", "schedule", "PQ", "things", "stuff", "encoder GFLOPs", "total GFLOPs", "s / image"]
    rows = []
    for name, overrides in settings.items():
        (scores,) = json.loads((folder / name / "scores.json").read_text())["exits"].values()
        quality = [f"{scores[key]:.1f}" for key in ("pq", "pq_things", "pq_stuff")]
        cost = [f"{scores[key]:.4f}" for key in ("encoder_gflops", "total_gflops")]
        schedule = " ".join(map(str, configure(overrides).schedule))
        rows.append([name, schedule, *quality, *cost, f"{seconds[name]:.4f}"])
    with open(folder / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    lines = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    table = Table(*header, box=SIMPLE, caption="held-out scenes; seconds: medians, one thread, the models taking turns")
    table.columns[0].min_width = max(map(len, settings))
    for row in rows:
        table.add_row(*row)
    return table


def stack_pictures(folder: Path) -> list[Path]:
    """The same scenes by both models, one above the other."""
    (folder / "pictures").mkdir(exist_ok=True)
    made = []
    for first in sorted((folder / next(iter(MODELS)) / "pictures").glob("*.png")):
        sheets = {name: Image.open(folder / name / "pictures" / first.name) for name in MODELS}
        width, height = sheets[next(iter(MODELS))].size
        page = Image.new("RGB", (width, len(sheets) * (height + STRIP)), "white")
        for place, (name, sheet) in enumerate(sheets.items()):
            top = place * (height + STRIP)
            ImageDraw.Draw(page).text((8, top + 4), name, "black", ImageFont.load_default(16))
            page.paste(sheet, (0, top + STRIP))
        made.append(folder / "pictures" / first.name)
        page.save(made[-1])
    return made


if __name__ == "__main__":
    main()
