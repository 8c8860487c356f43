"""ECO-M2F's three steps on procedural scenes, and the resulting trade-off of quality against multiply-adds.

For each seed, trains a parent and a PRO-SCALE model with exits, labels scenes, and trains gates: five that predict the
exit, one for each beta, and two that predict quality for any beta, with all inputs and with the published input. Plain
PRO-SCALE is trained for the first seed. Writes FOLDER/curve.png, leavers.png, table.md and table.csv. Finished jobs are
kept.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.markdown import Markdown
from torch import Tensor

from scripts.eco_pictures import draw_curve, draw_leavers
from scripts.eco_table import Row, markdown
from src.config.command_line import configure
from src.exit_table.table import ExitTable, read_table
from src.jobs.job import Job, run_job
from src.jobs.running import run_all
from src.metrics.exit_choice import best_exit, outcome, taken
from src.records.csv_file import write_csv
from src.system.atomic import write_text
from src.system.cpus import processors
from src.tasks.gated_evaluation import read_gate

BETAS = (0.001, 0.002, 0.003, 0.005, 0.01)
QUIET = "trainer.enable_progress_bar=false"
INPUTS = "[mean32,std32,mean16,std16,mean8,std8]"
PARENT, BOTH = "Mask2Former", "PRO-SCALE 1 1 2"  # with exits
PLAIN = {"PRO-SCALE 1 1 1": "[1,1,1]", "PRO-SCALE 2 2 2": "[2,2,2]"}  # without


class Model(NamedTuple):
    """A model to train."""

    name: str
    seed: int
    overrides: list[str]

    @property
    def title(self) -> str:
        return f"{self.name}, seed {self.seed}"

    @property
    def folder(self) -> str:
        return f"{self.name} seed{self.seed}".lower().replace(" ", "_")

    @property
    def gated(self) -> bool:
        return self.name not in PLAIN


def main() -> None:
    """Run the steps, then read the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("eco"), help="where results go (default: eco)")
    parser.add_argument("--seeds", type=int, default=1, help="models with exits, and gates for each (default: 1)")
    parser.add_argument("--num-labelled", type=int, default=4000, help="scenes that gates learn from (default: 4000)")
    parser.add_argument("--num-judged", type=int, default=1000, help="other scenes, to judge by (default: 1000)")
    parser.add_argument("--steps", type=int, default=2000, help="training steps of a parent (default: 2000)")
    parser.add_argument("--at-once", type=int, default=processors(), help="jobs side by side (default: one a core)")
    arguments = parser.parse_args()

    folder = arguments.folder
    models = list(models_of(arguments.seeds, arguments.steps))
    jobs = [job for model in models for job in jobs_of(model, folder / model.folder, arguments)]
    if failed := run_all(jobs, arguments.at_once):
        sys.exit("\n".join(f"error: {name}: {why}" for name, why in failed.items()))
    rows = [row for model in models for row in rows_of(model, folder, other_table(model, folder, arguments.seeds))]
    write_csv([row._asdict() for row in rows], folder / "table.csv")
    text = markdown(rows)
    write_text(text, folder / "table.md")
    draw_curve(rows, folder / "curve.png")
    parent = folder / models[0].folder
    table = judged(parent)
    draw_leavers(parent / "model", table, scores_of(parent / "gate_quality", table), folder / "leavers.png")
    Console().print(Markdown(text))
    print(f"{folder}/table.md, table.csv, curve.png, leavers.png")


def models_of(num_seeds: int, steps: int) -> Iterator[Model]:
    """Yield models with exits for every seed, plain ones for the first seed."""
    for seed in range(num_seeds):
        yield Model(PARENT, seed, ["+experiment=eco_parent_shapes", f"seed={seed}", *length(steps)])
    for seed in range(num_seeds):
        yield Model(BOTH, seed, ["+experiment=eco_proscale_shapes", f"seed={seed}", *length(steps // 2)])
    for name, schedule in PLAIN.items():
        yield Model(name, 0, ["+experiment=proscale_shapes", f"schedule={schedule}", *length(steps)])


def length(steps: int) -> list[str]:
    return [f"trainer.max_steps={steps}", f"validate_every={steps}"]


def jobs_of(model: Model, folder: Path, arguments: argparse.Namespace) -> Iterator[Job]:
    """Yield training, labelling and gates of a model. A changed command line would repeat a finished job."""
    run = folder / "model"
    training = ["src.train", *model.overrides, f"hydra.run.dir={run}", "data.num_workers=0"]
    steps = configure(model.overrides).trainer.max_steps
    train = Job(f"{model.title}: train", training, run, steps=steps)
    yield train
    label = ["src.label", f"ckpt_path={run}/checkpoints/last.ckpt", f"task.inputs={INPUTS}"]
    label += ["data.num_workers=0", QUIET]
    splits = {"val": arguments.num_judged} | ({"train": arguments.num_labelled} if model.gated else {})
    for split, number in splits.items():
        place = folder / f"label_{split}"
        scenes = [f"split={split}", f"data.{split}.num_scenes={number}", f"table={place / 'table'}"]
        yield run_job(f"{model.title}: label {split}", place, [*label, *scenes], (train.name,))
    table = f"data.table={folder / 'label_train/table'}"
    for name, overrides in gates_of(model).items():
        place = folder / name
        gate = ["+experiment=eco_gate_shapes", table, f"seed={model.seed}", f"hydra.run.dir={place}", QUIET, *overrides]
        yield Job(f"{model.title}: {name}", ["src.train", *gate], place, (f"{model.title}: label train",))


def gates_of(model: Model) -> dict[str, list[str]]:
    """Return the overrides of a model's gates by name."""
    if not model.gated:
        return {}
    published = ["task.target=quality", "task.gate.inputs=[mean32]"]
    fixed = {f"gate_{beta:g}": ["task.target=exit", f"beta={beta}"] for beta in BETAS}
    return {"gate_quality": ["task.target=quality"], "gate_mean32": published, **fixed}


def rows_of(model: Model, results: Path, other: ExitTable | None) -> Iterator[Row]:
    """Yield the result of every policy on the scenes that no gate has seen.

    `other` is another parent's table of the same scenes. The result of its best exits shows how much of the oracle's
    lead is a property of the scenes rather than of one training.
    """
    folder = results / model.folder
    table = judged(folder)
    exits, count = table.info.exits, len(table.info.exits)
    names = {"gate quality": "gate_quality", "gate quality, mean32": "gate_mean32"} if model.gated else {}
    qualities = {policy: scores_of(folder / name, table) for policy, name in names.items()}  # the same for all betas
    for beta in BETAS:
        choices = {f"exit {depth}": torch.full((len(table),), column) for column, depth in enumerate(exits)}
        if model.gated:
            choices["gate exit"] = best_exit(scores_of(folder / f"gate_{beta:g}", table), exits, 0.0)
            choices |= {policy: best_exit(scores, exits, beta) for policy, scores in qualities.items()}
            choices["oracle"] = best_exit(table.quality, exits, beta)
        if other is not None:
            choices["another's oracle"] = best_exit(other.quality, exits, beta)
        for policy, choice in choices.items():
            share = taken(choice, count).double()
            random = outcome(share.mean(0), table.quality, table.cost, exits, beta)  # with the same histogram
            result = outcome(share, table.quality, table.cost, exits, beta)
            yield Row(model.name, model.seed, policy, beta, *result, random.quality)


def other_table(model: Model, folder: Path, num_seeds: int) -> ExitTable | None:
    """Return the labels of the same model with the next seed, if there is one."""
    if not model.gated or num_seeds < 2:
        return None
    return judged(folder / model._replace(seed=(model.seed + 1) % num_seeds).folder)


def judged(folder: Path) -> ExitTable:
    """Return the labels of the scenes to judge by, without scenes that have no quality."""
    table = read_table(folder / "label_val/table")
    return table.rows(table.labelled)


@torch.no_grad()
def scores_of(run: Path, table: ExitTable) -> Tensor:
    """Return a gate's score of every exit for the images of a table, (N, E)."""
    gate = read_gate(str(run / "checkpoints/best.ckpt")).gate
    return gate.score(torch.cat([table.inputs[name] for name in gate.inputs], 1))


if __name__ == "__main__":
    main()
