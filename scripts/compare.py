"""Train small models of both papers and what they are compared with on one data set, score and time them, in one table.

python -m scripts.compare camvid data.root=data/camvid                                          all rows
python -m scripts.compare animals --models proscale,lite --seeds 0,1,2 data.root=data/animals   some of them

The last checkpoint is scored, none is selected: on CamVid's test split, on the validation images of the others. Writes
FOLDER/table.md and table.csv. Finished jobs are kept. Set OMP_NUM_THREADS=1 if jobs share cores.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markdown import Markdown

from scripts.latency import timed, ways_of
from scripts.tables import mean_and_deviation
from src.config.command_line import configure
from src.jobs.job import Job
from src.jobs.results import scores_of
from src.jobs.running import run_all
from src.prediction.inputs import Inputs
from src.predictor import Predictor
from src.records.csv_file import write_csv
from src.records.markdown import markdown_table
from src.records.run_folder import folder_name
from src.system.atomic import write_text
from src.system.cpus import processors

BETAS = (0.001, 0.003, 0.01, 0.03)
QUIET = "trainer.enable_progress_bar=false"
TEST = {"camvid": ["data=camvid_test"], "animals": [], "nyuv2": []}  # settings of the images to score, by data set
NUM_TIMED, ROUNDS = 10, 5  # images, and how often each


class Model(NamedTuple):
    """A model to train. One that starts from the weights of another becomes the parent of gates."""

    title: str
    data: str  # a data set of TEST
    overrides: tuple[str, ...]
    start: str | None = None

    @property
    def gated(self) -> bool:
        return self.start is not None


ECO = ("trainer.max_steps=300", "lr=5e-4")  # from a trained Mask2Former
VARIANTS = {
    "mask2former_light": "Mask2Former, light pixel embedding",
    "proscale_conv": "PRO-SCALE, convolutional pixel embedding",
    "proscale_depthwise": "PRO-SCALE, depthwise pixel embedding",
    "lite": "Lite DETR style",
    "lite_light": "Lite DETR style, light pixel embedding",
    "hybrid": "RT-DETR style",
    "fpn": "feature pyramid, no encoder",
}
NAMES = ("mask2former", "proscale", "eco", *VARIANTS)


def models_on(data: str) -> dict[str, Model]:
    """Return the models to train on a data set, by name."""
    baseline = f"+experiment=mask2former_{data}"
    return {
        "mask2former": Model("Mask2Former", data, (baseline,)),
        "proscale": Model("PRO-SCALE", data, (f"+experiment=proscale_{data}",)),
        "eco": Model("ECO-M2F", data, (f"+experiment=eco_parent_{data}", *ECO), start="mask2former"),
        **{name: Model(title, data, (baseline, f"variant={name}")) for name, title in VARIANTS.items()},
    }


class Row(NamedTuple):
    """Scores of one training, at an exit or with a gate."""

    model: str
    way: str
    seed: int
    miou: float
    encoder_gflops: float  # of the pixel decoder
    image_gflops: float  # of all

    @property
    def name(self) -> str:
        return f"{self.model}, {self.way}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score, time, tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=TEST, help="the data set")
    parser.add_argument("--models", type=names, default=",".join(NAMES), help="rows (default: %(default)s)")
    parser.add_argument("--seeds", type=numbers, default="0,1", help="trainings of each (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="default: runs/compare/DATA")
    parser.add_argument("--at-once", type=int, default=processors(), help="jobs side by side (default: one a core)")
    parser.add_argument("overrides", nargs="*", help="settings of the trainings")
    args = parser.parse_intermixed_args(arguments)

    models, out = models_on(args.data), args.folder or Path("runs/compare") / args.data
    runs = {(name, seed): out / name / f"seed{seed}" for seed in args.seeds for name in args.models}
    jobs: dict[str, Job] = {}
    try:
        for (name, seed), run in runs.items():
            jobs |= {job.name: job for job in jobs_of(models[name], seed, run, args.overrides)}
    except ValueError as error:
        sys.exit(f"error: {error}")
    if failed := run_all([*jobs.values()], args.at_once):
        sys.exit("\n".join(f"error: {name}: {why}" for name, why in failed.items()))
    rows = [row for (name, seed), run in runs.items() for row in rows_of(models[name], seed, run)]
    images = configure([*models[args.models[0]].overrides, *args.overrides, *TEST[args.data]]).data.val.image_folder
    shares = latencies_of({models[name]: runs[name, args.seeds[0]] for name in args.models}, images)
    write_csv([{**row._asdict(), "latency": shares[row.name]} for row in rows], out / "table.csv")
    text = results_table(rows, shares)
    write_text(text, out / "table.md")
    Console().print(Markdown(text))
    print(f"{out}/table.md, table.csv")


def names(text: str) -> list[str]:
    found = text.split(",")
    if unknown := set(found) - set(NAMES):
        raise argparse.ArgumentTypeError(f"{min(unknown)!r} is no model, expected some of {', '.join(NAMES)}")
    return found


def numbers(text: str) -> list[int]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r}, expected whole numbers as 0,1,2")
    return [int(number) for number in text.split(",")]


def jobs_of(model: Model, seed: int, run: Path, overrides: Sequence[str]) -> Iterator[Job]:
    """Yield training and scoring of a model. A changed command line would repeat a finished job.

    A parent is trained after the model that it starts from; src.eco trains and scores its gates.
    """
    title, settings = f"{model.title}, seed {seed}", [*model.overrides, f"seed={seed}", *overrides]
    steps = configure(settings).trainer.max_steps
    after: tuple[str, ...] = ()
    if model.start is not None:
        other = run.parents[1] / model.start / run.name
        first = next(jobs_of(models_on(model.data)[model.start], seed, other, overrides))
        yield first
        settings.append(f"model.weights={other / 'train/checkpoints/last.ckpt'}")
        after = (first.name,)
    place, last = run / "train", run / "train/checkpoints/last.ckpt"
    train = Job(f"{title}: train", ["src.train", *settings, QUIET, f"hydra.run.dir={place}"], place, after, steps)
    yield train
    if model.gated:
        score = ["src.eco", f"parent={last}", f"betas=[{','.join(map(str, BETAS))}]"]
    else:
        score = ["src.evaluate", f"ckpt_path={last}", QUIET]
    place = run / "test"
    yield Job(f"{title}: test", [*score, *TEST[model.data], f"hydra.run.dir={place}"], place, (train.name,))


def rows_of(model: Model, seed: int, run: Path) -> Iterator[Row]:
    """Yield the scores of a model at every exit and with every gate."""
    exits = run / "test/parent" if model.gated else run / "test"
    for depth, scores in scores_of(exits).items():
        yield row_of(model, f"exit {depth}", seed, scores)
    for beta in BETAS if model.gated else ():
        scores = scores_of(run / "test" / f"eco_gate_{model.data}" / folder_name(f"scores beta={beta}"))["gate"]
        yield row_of(model, f"gate, beta {beta}", seed, scores)


def row_of(model: Model, way: str, seed: int, scores: Mapping[str, float]) -> Row:
    return Row(model.title, way, seed, scores["miou"], scores["encoder_gflops"], scores["image_gflops"])


def latencies_of(runs: dict[Model, Path], images: str) -> dict[str, float]:
    """Return latencies relative to the first row, by the names of rows; all take turns on the same images."""
    predictors = {}
    for model, run in runs.items():
        last = run / "train/checkpoints/last.ckpt"
        predictors[model.title] = Predictor.load(last)
        for beta in BETAS if model.gated else ():
            gate = run / "test" / f"eco_gate_{model.data}" / folder_name(f"gate beta={beta}") / "checkpoints/best.ckpt"
            predictors[f"{model.title}, gate, beta {beta}"] = Predictor.load(last, f"gate={gate}")
    ways = {}
    for (name, way), call in ways_of(predictors).items():
        if (way == "gate") == (", gate, " in name):  # a predictor with a gate also has the exits again
            ways[name, way] = call
    samples = [image for _, image in islice(Inputs([images]), NUM_TIMED)]
    ratios = {}
    for row in timed(predictors, ways, samples, ROUNDS):
        way = row["way"].replace("exit", "exit ")
        ratios[row["model"] if way == "gate" else f"{row['model']}, {way}"] = row["ratio"]
    return ratios


def results_table(rows: Sequence[Row], latencies: Mapping[str, float]) -> str:
    """Return a Markdown line for each model and way: means over seeds, with their standard deviations."""
    lines = []
    for name in dict.fromkeys(row.name for row in rows):
        seeds = [row for row in rows if row.name == name]
        scores = [row.miou for row in seeds]
        lines.append(
            [
                seeds[0].model,
                seeds[0].way,
                mean_and_deviation(scores, 1),
                ", ".join(f"{score:.1f}" for score in scores),
                f"{statistics.mean(row.encoder_gflops for row in seeds):.3f}",
                f"{statistics.mean(row.image_gflops for row in seeds):.3f}",
                f"{latencies[name]:.2f}",
            ]
        )
    header = ["model", "left at", "mIoU", "each seed", "pixel decoder GFLOPs", "GFLOPs", "latency"]
    return markdown_table(header, lines) + "\n"


if __name__ == "__main__":
    main()
