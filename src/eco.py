"""ECO-M2F's three steps as one chain: python -m src.eco +experiment=eco_parent_shapes 'betas=[0.001,0.01]'.

Settings are the parent's; those that begin with `gates.` are the gates'. What is there already is not made again.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src.config.command_line import CONF, check, configure, run
from src.config.errors import report_errors
from src.config.home import expand_home
from src.config.saved_settings import saved_overrides
from src.config.schema import quote, spell
from src.config.search_path import search_path
from src.jobs.results import failures, front_of, marked, rows_of, table_of
from src.jobs.running import Job, run_all, visible_gpus, wants_several
from src.jobs.unchanged import check_unchanged
from src.records.csv_file import write_csv
from src.records.run_folder import folder_name, locked
from src.system.terminal import fail

OWN = ("betas", "gates", "gate_overrides", "evaluate", "at_once", "on_failure")  # of the chain, not of its parent
SHARED = ("logger", "allow")  # by all jobs
GIVEN = ("beta", "budget_gflops", "data.table", "seed")  # to every gate
QUIET = "trainer.enable_progress_bar=false"


def of_parent(overrides: Sequence[str]) -> list[str]:
    """Overrides that decide what the parent is."""
    return [override for override in overrides if name_of(override) not in OWN]


def name_of(override: str) -> str:
    return override.lstrip("+~").split("=")[0]


OmegaConf.register_new_resolver("of_parent", of_parent, replace=True)


class Step(NamedTuple):
    """A job, and what tells it from others of its kind."""

    job: Job
    given: dict[str, str]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="eco")
@report_errors
def eco(cfg: DictConfig) -> None:
    """Run what is missing, and tabulate what came of all; a job that failed makes the exit status 1."""
    config, console = HydraConfig.get(), Console()
    folder, typed = Path(config.run.dir), of_parent(config.overrides.task)
    check_parent(cfg, typed)
    steps = list(chain(cfg, typed, folder))
    for step in steps:
        if step.job.arguments[0] == "src.train":
            check_unchanged(step.job, configure(step.job.arguments[1:]), "hydra.run.dir")
    jobs = {step.job.name: step.job for step in steps}
    with locked(folder, "hydra.run.dir"):
        os.environ.setdefault("WANDB_RUN_GROUP", folder.name)  # W&B shows the jobs together
        failed = run_all([*jobs.values()], cfg.at_once or 1, visible_gpus()[: cfg.at_once], cfg.on_failure)
        rows = [row for step in steps for row in rows_of(*step, failed)]
        held_out, scored = ([row for row in rows if ("utility" in row) is held] for held in (True, False))
        marked(scored)  # the front of what images were scored at; a holdout's qualities are of another kind
        write_csv(rows, folder / "table.csv")
    if held_out:
        console.print(table_of(held_out, "gates on the holdout of the exit table"))
    console.print(table_of(scored, f"{folder}/table.csv"))
    if any(row.get("front") for row in scored):
        console.print(front_of(scored))
    if failed:
        console.print(failures(failed, jobs))
    print(f"python -m src.report {folder}")
    if failed:
        sys.exit(1)


def check_parent(cfg: DictConfig, typed: list[str]) -> None:
    """Refuse what leaves a gate nothing to choose, or would be of no effect."""
    values = {name.lstrip("+"): value for name, value in given(typed).items()}
    instead = {"beta": "betas=[...]", "budget_gflops": "betas=[...]", "ckpt_path": "parent=FILE"}
    for name in instead.keys() & values.keys():
        fail(f"{name}={values[name]}: not a setting of this chain, expected {instead[name]}")
    if cfg.exits is None or len(cfg.exits) < 2:
        exits = cfg.exits and list(cfg.exits)
        fail(f"exits={spell(exits)}: with a single exit there is nothing to choose, expected two or more")
    if not cfg.parent and wants_several(cfg.trainer.devices):
        fail(
            f"trainer.devices={cfg.trainer.devices}: a job of a chain has one GPU to itself, expected 1; to train the "
            "parent on several, run python -m src.train, then this with parent=FILE"
        )


def chain(cfg: DictConfig, typed: list[str], folder: Path) -> Iterator[Step]:
    """Parent, exit table, gates and their scores."""
    search = search_path(HydraConfig.get())
    shared = [*search, *(override for override in typed if name_of(override).split(".")[0] in SHARED)]
    gates, inputs, one_for_all = gates_of(cfg, folder, shared)
    betas = [f"beta={float(beta)}" for beta in cfg.betas]
    place, after, alone = folder / "parent", ("parent",), ["trainer.devices=1", QUIET]
    if cfg.parent is None:
        last = f"{place}/checkpoints/last.ckpt"  # whose scores, being the newest, stand beside those of gates
        frozen = [f"ckpt_path={last}", *shared, *alone]  # other settings come back from the checkpoint
        steps = cfg.trainer.max_steps if cfg.trainer.get("max_epochs") is None else None
        yield Step(job("parent", place, ["src.train", *search, *typed], steps=steps), {})
    else:
        others = [override for override in typed if name_of(override) != "parent"]
        frozen = [f"ckpt_path={cfg.parent}", *search, *others, *alone]
        yield Step(job("parent", place, ["src.evaluate", *frozen]), {})

    place = folder / folder_name(f"label_{'+'.join(inputs)}")
    table = place / "table"
    label = ["src.label", *frozen, f"table={quote(str(table))}", f"task.inputs=[{','.join(inputs)}]"]
    yield Step(job("exit table", place, label, after), {})

    place = folder / folder_name(" ".join(gates).removeprefix("+experiment="))
    train = ["src.train", *gates, *shared, f"data.table={quote(str(table))}", f"seed={cfg.seed}", QUIET]
    learnt: dict[str, list[str]] = {"gate": []} if one_for_all else {f"gate {beta}": [beta] for beta in betas}
    for name, own in learnt.items():
        yield Step(job(name, place / folder_name(name), [*train, *own], ("exit table",)), given(own))
    for beta in betas if cfg.evaluate else []:
        name = "gate" if one_for_all else f"gate {beta}"
        score = ["src.evaluate", *frozen, f"gate={place / folder_name(name)}/checkpoints/best.ckpt", beta]
        yield Step(job(f"scores {beta}", place / folder_name(f"scores {beta}"), score, (name,)), given([beta]))


def given(overrides: list[str]) -> dict[str, str]:
    """Values by name."""
    return dict(override.split("=", 1) for override in overrides if "=" in override)


def job(name: str, place: Path, arguments: list[str], after: tuple[str, ...] = (), steps: int | None = None) -> Job:
    """A job whose run folder is its folder."""
    return Job(name, [*arguments, f"hydra.run.dir={quote(str(place))}"], place, after, steps)


def gates_of(cfg: DictConfig, folder: Path, shared: list[str]) -> tuple[list[str], list[str], bool]:
    """Overrides of every gate, what it sees, and whether one gate serves all betas; refuses what is no gate."""
    name = cfg.gates or f"eco_gate_{HydraConfig.get().runtime.choices['data'].split('_')[0]}"
    for override in cfg.gate_overrides:
        if name_of(override) in GIVEN:
            fail(f"gates.{override}: every gate has that from the chain; expected another setting, or betas=[...]")
    gates = [f"+experiment={name}", *cfg.gate_overrides]
    check([*shared, *gates, f"hydra.run.dir={quote(str(folder))}"])
    task = configure([*shared, *gates]).task
    if task._target_ != "src.tasks.gate_training.GateTraining":
        fail(f"gates={name}: an experiment of {task._target_}, expected one of a gate, for example eco_gate_coco")
    return gates, list(task.gate.inputs), task.target == "quality" and cfg.evaluate


def arguments(typed: list[str]) -> list[str]:
    """What was typed: the gates' settings as one, and with a parent that there is, its settings before all others."""
    typed = [*map(expand_home, typed)]
    if {"-m", "--multirun"} & set(typed):
        fail("-m: a chain has its own sweep, over betas=[...]; for other parents start it once for each")
    if file := given(typed).get("parent"):
        if not Path(file).is_file():
            fail(f"parent={file}: no such file, looked in {Path.cwd()}")
        if experiments := {"+experiment", "experiment"} & given(typed).keys():
            fail(f"experiment={given(typed)[experiments.pop()]}: parent={file} brings its own, expected one of the two")
    gates = [quote(argument.replace("gates.", "", 1)) for argument in typed if name_of(argument).startswith("gates.")]
    others = [argument for argument in typed if not name_of(argument).startswith("gates.")]
    return saved_overrides([*others, *([f"gate_overrides=[{','.join(gates)}]"] if gates else [])], setting="parent")


if __name__ == "__main__":
    run(eco, arguments(sys.argv[1:]), "eco")
