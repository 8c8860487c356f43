"""Mask2Former, PRO-SCALE and ECO-M2F, small, on CamVid: trained, scored on the test split and timed, as one table.

python -m scripts.camvid data.root=data/camvid                                          all rows
python -m scripts.camvid --models proscale,eco --seeds 0,1,2 data.root=data/camvid      some of them

Validation frames watch the training; the last checkpoint is scored, none is chosen. Leaves FOLDER/table.md and
table.csv. What is done already is not done again. Jobs that share cores want OMP_NUM_THREADS=1 before the command.
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

from scripts.eco_table import spell, table
from scripts.latency import timed, ways_of
from src.config.command_line import configure
from src.jobs.results import scores_of
from src.jobs.running import Job, run_all
from src.prediction.inputs import Inputs
from src.predictor import Predictor
from src.records.csv_file import write_csv
from src.records.run_folder import folder_name
from src.system.atomic import write_text
from src.system.cpus import processors

BETAS = (0.001, 0.003, 0.01, 0.03)
TEST, GATES, QUIET = "data=camvid_test", "eco_gate_camvid", "trainer.enable_progress_bar=false"
NUM_TIMED, ROUNDS = 10, 5  # images, and how often each


class Model(NamedTuple):
    """A model that is trained; one that starts from another's weights is the parent of gates."""

    title: str
    overrides: tuple[str, ...]
    start: str | None = None

    @property
    def gated(self) -> bool:
        return self.start is not None


MODELS = {
    "mask2former": Model("Mask2Former", ("+experiment=mask2former_camvid",)),
    "proscale": Model("PRO-SCALE", ("+experiment=proscale_camvid",)),
    "proscale_conv": Model(
        "PRO-SCALE's schedule, Mask2Former's pixel embedding",
        ("+experiment=proscale_camvid", "model/pixel_embedding=conv"),
    ),
    "eco": Model("ECO-M2F", ("+experiment=eco_parent_camvid", "trainer.max_steps=300", "lr=5e-4"), start="mask2former"),
}


class Row(NamedTuple):
    """What one training comes to on the test split, where images leave at an exit or as a gate says."""

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
    names = ",".join(MODELS)
    parser.add_argument("--models", type=models, default=names, help="rows (default: %(default)s)")
    parser.add_argument("--seeds", type=numbers, default="0,1", help="trainings of each (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/camvid"), help="default: %(default)s")
    parser.add_argument("--at-once", type=int, default=processors(), help="jobs side by side (default: one a core)")
    parser.add_argument("overrides", nargs="*", help="settings of the trainings")
    args = parser.parse_intermixed_args(arguments)

    runs = {(name, seed): args.folder / name / f"seed{seed}" for seed in args.seeds for name in args.models}
    try:
        jobs = {
            job.name: job
            for (name, seed), run in runs.items()
            for job in jobs_of(MODELS[name], seed, run, args.overrides)
        }
    except ValueError as error:
        sys.exit(f"error: {error}")
    if failed := run_all([*jobs.values()], args.at_once):
        sys.exit("\n".join(f"error: {name}: {why}" for name, why in failed.items()))
    rows = [row for (name, seed), run in runs.items() for row in rows_of(MODELS[name], seed, run)]
    folder = configure([*MODELS[args.models[0]].overrides, *args.overrides, TEST]).data.val.image_folder
    shares = latencies_of({MODELS[name]: runs[name, args.seeds[0]] for name in args.models}, folder)
    write_csv([{**row._asdict(), "latency": shares[row.name]} for row in rows], args.folder / "table.csv")
    text = markdown(rows, shares)
    write_text(text, args.folder / "table.md")
    Console().print(Markdown(text))
    print(f"{args.folder}/table.md, table.csv")


def models(text: str) -> list[str]:
    """Names of models."""
    if unknown := set(names := text.split(",")) - set(MODELS):
        raise argparse.ArgumentTypeError(f"{min(unknown)!r} is no model, expected some of {', '.join(MODELS)}")
    return names


def numbers(text: str) -> list[int]:
    """Seeds."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r}, expected whole numbers as 0,1,2")
    return [int(number) for number in text.split(",")]


def jobs_of(model: Model, seed: int, run: Path, overrides: Sequence[str]) -> Iterator[Job]:
    """Training, and scores; of a parent the whole chain, after the training that it starts from."""
    title, settings = f"{model.title}, seed {seed}", [*model.overrides, f"seed={seed}", *overrides]
    place, last = run / "train", run / "train/checkpoints/last.ckpt"
    steps = configure(settings).trainer.max_steps
    after: tuple[str, ...] = ()
    if model.start is not None:
        other = run.parents[1] / model.start / run.name
        begin = next(jobs_of(MODELS[model.start], seed, other, overrides))
        yield begin
        settings, after = [*settings, f"model.weights={other / 'train/checkpoints/last.ckpt'}"], (begin.name,)
    train = Job(f"{title}: train", ["src.train", *settings, QUIET, f"hydra.run.dir={place}"], place, after, steps)
    yield train
    chain = ["src.eco", f"parent={last}", f"betas=[{','.join(map(str, BETAS))}]"]
    score = chain if model.gated else ["src.evaluate", f"ckpt_path={last}", QUIET]
    yield Job(f"{title}: test", [*score, TEST, f"hydra.run.dir={run / 'test'}"], run / "test", (train.name,))


def rows_of(model: Model, seed: int, run: Path) -> Iterator[Row]:
    """What a model came to at every exit, and with every gate."""
    places = {"": run / "test"}
    if model.gated:
        gates = {f"gate, beta {beta}": run / "test" / GATES / folder_name(f"scores beta={beta}") for beta in BETAS}
        places = {"": run / "test/parent", **gates}
    for gate, place in places.items():
        for chosen, scores in scores_of(place).items():
            if bool(gate) == (chosen == "gate"):  # beside a gate stand the exits, again
                way = gate or f"exit {chosen}"
                yield Row(model.title, way, seed, scores["miou"], scores["encoder_gflops"], scores["image_gflops"])


def latencies_of(runs: dict[Model, Path], images: str) -> dict[str, float]:
    """Shares of the first row's latency, by the names of rows, all taking turns on the same images."""
    predictors = {}
    for model, run in runs.items():
        last = run / "train/checkpoints/last.ckpt"
        predictors[model.title] = Predictor.load(last)
        for beta in BETAS if model.gated else ():
            gate = run / "test" / GATES / folder_name(f"gate beta={beta}") / "checkpoints/best.ckpt"
            predictors[f"{model.title}, gate, beta {beta}"] = Predictor.load(last, f"gate={gate}")
    photos = [photo for _, photo in islice(Inputs([images]), NUM_TIMED)]
    ways = {key: way for key, way in ways_of(predictors).items() if (key[1] == "gate") == (", gate, " in key[0])}
    return {
        row["model"] if row["way"] == "gate" else f"{row['model']}, {row['way'].replace('exit', 'exit ')}": row["ratio"]
        for row in timed(predictors, ways, photos, ROUNDS)
    }


def markdown(rows: Sequence[Row], shares: Mapping[str, float]) -> str:
    """A line for each model and way: means over seeds, with standard deviations where there are several."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    lines = [
        [
            ones[0].model,
            ones[0].way,
            spell([one.miou for one in ones], 1),
            ", ".join(f"{one.miou:.1f}" for one in ones),
            f"{statistics.mean(one.encoder_gflops for one in ones):.3f}",
            f"{statistics.mean(one.image_gflops for one in ones):.3f}",
            f"{shares[name]:.2f}",
        ]
        for name, ones in found.items()
    ]
    header = ["model", "left at", "mIoU, test", "each seed", "pixel decoder GFLOPs", "GFLOPs", "latency"]
    return table(header, lines) + "\n"


if __name__ == "__main__":
    main()
