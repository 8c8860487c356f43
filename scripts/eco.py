"""ECO-M2F's three steps on procedural scenes, and the trade-off they make: quality against multiply-adds.

Trains models with exits, for each seed a parent and one with exits inside PRO-SCALE's schedule, labels scenes, and
trains gates for them: five that learn the exit, one for each beta, and two that learn qualities and run at all five,
with all inputs and with the published one. Beside them plain PRO-SCALE, of the first seed. Leaves FOLDER/curve.png,
leavers.png, table.md and table.csv. What is done already is not done again.
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
from src.jobs.running import Job, run_all
from src.metrics.exit_choice import best_exit, outcome, taken
from src.records.csv_file import write_csv
from src.system.atomic import write_text
from src.system.cpus import processors
from src.tasks.gated_evaluation import read_gate

BETAS = (0.001, 0.002, 0.003, 0.005, 0.01)
INPUTS = "[mean32,std32,mean16,std16,mean8,std8]"
PARENT, BOTH = "Mask2Former", "PRO-SCALE 1 1 2"  # with exits
PLAIN = {"PRO-SCALE 1 1 1": "[1,1,1]", "PRO-SCALE 2 2 2": "[2,2,2]"}  # without


class Model(NamedTuple):
    """A model that is trained."""

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
    jobs = [job for one in models for job in jobs_of(one, folder / one.folder, arguments)]
    if failed := run_all(jobs, arguments.at_once):
        sys.exit("\n".join(f"error: {name}: {why}" for name, why in failed.items()))
    rows = [
        row for one in models for row in rows_of(one, folder / one.folder, other_table(one, folder, arguments.seeds))
    ]
    write_csv([row._asdict() for row in rows], folder / "table.csv")
    write_text(markdown(rows), folder / "table.md")
    draw_curve(rows, folder / "curve.png")
    parent = folder / models[0].folder
    table = judged(parent)
    draw_leavers(models[0].overrides, parent, table, scores_of(parent / "gate_quality", table), folder / "leavers.png")
    Console().print(Markdown(markdown(rows)))
    print(f"{folder}/table.md, table.csv, curve.png, leavers.png")


def models_of(num_seeds: int, steps: int) -> Iterator[Model]:
    """Models with exits of every seed; those without of the first."""
    for seed in range(num_seeds):
        yield Model(PARENT, seed, ["+experiment=eco_parent_shapes", f"seed={seed}", *length(steps)])
    for seed in range(num_seeds):
        yield Model(BOTH, seed, ["+experiment=eco_proscale_shapes", f"seed={seed}", *length(steps // 2)])
    for name, schedule in PLAIN.items():
        yield Model(name, 0, ["+experiment=proscale_shapes", f"schedule={schedule}", *length(steps)])


def length(steps: int) -> list[str]:
    """Overrides for so many training steps."""
    return [f"trainer.max_steps={steps}", f"validate_every={steps}"]


def jobs_of(model: Model, folder: Path, arguments: argparse.Namespace) -> Iterator[Job]:
    """Training, labelling, gates."""
    run, quiet = folder / "model", "trainer.enable_progress_bar=false"
    training = [*model.overrides, f"hydra.run.dir={run}", "data.num_workers=0"]
    steps = configure(model.overrides).trainer.max_steps
    train = Job(f"{model.title}: train", ["src.train", *training], run, steps=steps)
    yield train
    splits = {"val": arguments.num_judged} | ({"train": arguments.num_labelled} if model.gated else {})
    for split, number in splits.items():
        place = folder / f"label_{split}"
        scenes = [f"split={split}", f"data.{split}.num_scenes={number}", f"table={place / 'table'}"]
        what = [f"ckpt_path={run}/checkpoints/last.ckpt", f"task.inputs={INPUTS}", "data.num_workers=0", quiet]
        yield Job(f"{model.title}: label {split}", ["src.label", *what, *scenes], place, (train.name,))
    for name, overrides in gates_of(model).items():
        place = folder / name
        table = f"data.table={folder / 'label_train/table'}"
        gate = ["+experiment=eco_gate_shapes", table, f"seed={model.seed}", f"hydra.run.dir={place}", quiet, *overrides]
        yield Job(f"{model.title}: {name}", ["src.train", *gate], place, (f"{model.title}: label train",))


def gates_of(model: Model) -> dict[str, list[str]]:
    """Overrides of the gates that are trained for a model, by name."""
    fixed = {f"gate_{beta:g}": ["task.target=exit", f"beta={beta}"] for beta in BETAS}
    published = ["task.target=quality", "task.gate.inputs=[mean32]"]
    return {"gate_quality": ["task.target=quality"], "gate_mean32": published, **fixed} if model.gated else {}


def rows_of(model: Model, folder: Path, other: ExitTable | None) -> Iterator[Row]:
    """What every choice of exits comes to on the scenes that no gate has seen.

    `other` is the table that another parent makes of the same scenes: what its best exits come to here tells how much
    of the oracle's lead lies in the scenes, and not in the chances of one training.
    """
    table = judged(folder)
    exits, count = table.info.exits, len(table.info.exits)
    names = {"gate quality": "gate_quality", "gate quality, mean32": "gate_mean32"} if model.gated else {}
    qualities = {who: scores_of(folder / name, table) for who, name in names.items()}  # predicted once for all betas
    for beta in BETAS:
        choices = {f"exit {depth}": torch.full((len(table),), column) for column, depth in enumerate(exits)}
        if model.gated:
            choices["gate exit"] = best_exit(scores_of(folder / f"gate_{beta:g}", table), exits, 0.0)
            choices |= {who: best_exit(scores, exits, beta) for who, scores in qualities.items()}
            choices["oracle"] = best_exit(table.quality, exits, beta)
        if other is not None:
            choices["another's oracle"] = best_exit(other.quality, exits, beta)
        for who, choice in choices.items():
            share = taken(choice, count).double()
            drawn = outcome(share.mean(0), table.quality, table.cost, exits, beta)  # as many at each exit, by lot
            here = outcome(share, table.quality, table.cost, exits, beta)
            yield Row(model.name, model.seed, who, beta, *here, drawn.quality)


def other_table(model: Model, folder: Path, num_seeds: int) -> ExitTable | None:
    """The labels that the next seed of a model makes, if there is one."""
    if not model.gated or num_seeds < 2:
        return None
    return judged(folder / model._replace(seed=(model.seed + 1) % num_seeds).folder)


def judged(folder: Path) -> ExitTable:
    """The labels of the scenes to judge by, those with a quality."""
    table = read_table(folder / "label_val/table")
    return table.rows(table.labelled)


@torch.no_grad()
def scores_of(run: Path, table: ExitTable) -> Tensor:
    """What a gate makes of each image of a table, (N, E)."""
    gate = read_gate(str(run / "checkpoints/best.ckpt")).gate
    return gate.score(torch.cat([table.inputs[name] for name in gate.inputs], 1))


if __name__ == "__main__":
    main()
