"""ECO-M2F's three steps in one command: python -m src.eco +experiment=eco_parent_shapes 'betas=[0.001,0.01]'.

Settings are those of the parent; settings that begin with `gates.` are those of the gates. Finished jobs are kept.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from src.config.command_line import CONF, check, configure, run
from src.config.errors import report_errors
from src.config.overrides import expand_home, name_of, quote, spell
from src.config.saved_settings import saved_overrides
from src.config.search_path import search_path
from src.jobs.job import Job, run_job
from src.jobs.results import failure_table, mark_pareto, result_tables, rows_of
from src.jobs.running import run_all, visible_gpus, wants_several
from src.jobs.unchanged import check_unchanged
from src.judging.files import write_answers
from src.judging.gates import takes_any_beta
from src.judging.session import Question, answer
from src.judging.tables import rich_tables, verdicts
from src.records.csv_file import write_csv
from src.records.run_folder import folder_name, locked
from src.system.terminal import fail

# Not settings of the parent.
CHAIN_ONLY = ("betas", "gates", "gate_overrides", "evaluate", "judge", "at_once", "on_failure")
SHARED = ("logger", "allow")  # settings of all jobs
SET_BY_CHAIN = ("beta", "budget_gflops", "budget_ms", "data.table", "seed")  # settings of gates that the chain chooses
QUIET = "trainer.enable_progress_bar=false"


def parent_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that belong to the parent."""
    return [override for override in overrides if name_of(override) not in CHAIN_ONLY]


OmegaConf.register_new_resolver("of_parent", parent_overrides, replace=True)  # names the folder, see conf/eco.yaml


class Step(NamedTuple):
    """A job and the settings that tell it from others of its kind."""

    job: Job
    values: dict[str, str]


class Gates(NamedTuple):
    """The gates that a chain trains."""

    overrides: list[str]
    inputs: list[str]  # pooled features that the exit table has to contain
    shared: bool  # one gate, which predicts quality, serves all betas


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="eco")
@report_errors
def eco(cfg: DictConfig) -> None:
    """Run the missing jobs and print the results of all; exit with status 1 if one failed."""
    config = HydraConfig.get()
    folder = Path(config.run.dir)
    overrides = parent_overrides(config.overrides.task)
    check_parent(cfg, overrides)
    steps = chain(cfg, overrides, folder)
    for step in steps:
        if step.job.arguments[0] == "src.train":
            check_unchanged(step.job, configure(step.job.arguments[1:]), "hydra.run.dir")
    jobs = {step.job.name: step.job for step in steps}
    with locked(folder, "hydra.run.dir"):
        os.environ.setdefault("WANDB_RUN_GROUP", folder.name)  # groups the jobs in W&B
        failed = run_all([*jobs.values()], cfg.at_once or 1, visible_gpus()[: cfg.at_once], cfg.on_failure)
        rows = [row for step in steps for row in rows_of(step.job, step.values, failed)]
        held_out = [row for row in rows if "utility" in row]
        scored = mark_pareto([row for row in rows if "utility" not in row])  # only these qualities are comparable
        write_csv(rows, folder / "table.csv")
        judged = judge_gates(steps, list(cfg.betas), folder) if cfg.judge else []
    console = Console()
    if held_out:
        console.print(*result_tables(held_out, "gates on the holdout of the exit table"), sep="\n")
    console.print(*result_tables(scored, f"{folder}/table.csv"), sep="\n")
    console.print(*judged, sep="\n")
    if failed:
        console.print(failure_table(failed, jobs))
    print(f"python -m src.report {folder}")
    if failed:
        sys.exit(1)


def judge_gates(steps: Sequence[Step], betas: list[float], folder: Path) -> list[Table | str]:
    """Judge the finished gates on the holdout of their table, write judge.json and return what there is to print."""
    gates = [step for step in steps if step.job.name.split()[0] == "gate" and step.job.done]
    if not gates:
        return []
    table = next(step.job.folder for step in steps if step.job.name == "exit table") / "table"
    shared = [] if gates[0].values else betas
    try:
        answers = answer(Question(table, [step.job.folder for step in gates], shared))
    except ValueError as error:  # the scores above stand without a judgement
        return [f"gates not judged: {error}"]
    write_answers(answers, folder)
    return [*rich_tables(answers), *verdicts(answers)]


def check_parent(cfg: DictConfig, overrides: list[str]) -> None:
    """Refuse settings of the parent that leave nothing for a gate to choose, or that have no effect."""
    values = {name.lstrip("+"): value for name, value in values_of(overrides).items()}
    alternatives = {
        **dict.fromkeys(("beta", "budget_gflops", "budget_ms"), "betas=[...]"),
        "ckpt_path": "parent=FILE",
    }
    for name in alternatives.keys() & values.keys():
        fail(f"{name}={values[name]}: not a setting of this chain, expected {alternatives[name]}")
    if cfg.exits is None or len(cfg.exits) < 2:
        exits = None if cfg.exits is None else list(cfg.exits)
        fail(f"exits={spell(exits)}: with a single exit there is nothing to choose, expected two or more")
    if not cfg.parent and wants_several(cfg.trainer.devices):
        fail(
            f"trainer.devices={cfg.trainer.devices}: a job of a chain has one GPU to itself, expected 1; to train the "
            "parent on several, run python -m src.train, then this with parent=FILE"
        )


def chain(cfg: DictConfig, overrides: list[str], folder: Path) -> list[Step]:
    """Return the jobs of ECO-M2F: A, the parent; B, its exit table; C, gates, and their scores."""
    search = search_path(HydraConfig.get())
    shared = [*search, *(override for override in overrides if name_of(override).split(".")[0] in SHARED)]
    gates = gates_of(cfg, folder, shared)
    betas = [f"beta={float(beta)}" for beta in cfg.betas]

    parent, trained = parent_job(cfg, overrides, folder / "parent", search, shared)
    table = table_job(gates, trained, folder)
    place = folder / folder_name(" ".join(gates.overrides).removeprefix("+experiment="))
    table_setting = f"data.table={quote(str(table.folder / 'table'))}"
    gate_overrides = [*gates.overrides, *shared, table_setting, f"seed={cfg.seed}", QUIET]
    scores = score_jobs(gates, trained, betas, place) if cfg.evaluate else []
    return [Step(parent, {}), Step(table, {}), *gate_jobs(gates, gate_overrides, betas, place), *scores]


def parent_job(
    cfg: DictConfig, overrides: list[str], place: Path, search: list[str], shared: list[str]
) -> tuple[Job, list[str]]:
    """Step A: train the parent, or score the given one; return also the overrides with which later jobs load it."""
    if cfg.parent is not None:
        others = [override for override in overrides if name_of(override) != "parent"]
        trained = [f"ckpt_path={cfg.parent}", *search, *others, "trainer.devices=1", QUIET]
        return run_job("parent", place, ["src.evaluate", *trained]), trained
    checkpoint = place / "checkpoints/last.ckpt"  # the newest scores are those of the last checkpoint
    steps = cfg.trainer.max_steps if cfg.trainer.get("max_epochs") is None else None
    job = run_job("parent", place, ["src.train", *search, *overrides], steps=steps)
    return job, [f"ckpt_path={checkpoint}", *shared, "trainer.devices=1", QUIET]


def table_job(gates: Gates, trained: list[str], folder: Path) -> Job:
    """Step B: label the training images with the quality of every exit and the inputs of the gates."""
    place = folder / folder_name(f"label_{'+'.join(gates.inputs)}")
    settings = [f"table={quote(str(place / 'table'))}", f"task.inputs=[{','.join(gates.inputs)}]"]
    return run_job("exit table", place, ["src.label", *trained, *settings], ("parent",))


def gate_jobs(gates: Gates, overrides: list[str], betas: list[str], place: Path) -> list[Step]:
    """Step C: train one gate for all betas, or one for each."""
    steps = []
    for own in [[]] if gates.shared else [[beta] for beta in betas]:
        name = " ".join(["gate", *own])
        job = run_job(name, place / folder_name(name), ["src.train", *overrides, *own], ("exit table",))
        steps.append(Step(job, values_of(own)))
    return steps


def score_jobs(gates: Gates, trained: list[str], betas: list[str], place: Path) -> list[Step]:
    """Score the parent with its gate on the validation images, for every beta."""
    steps = []
    for beta in betas:
        gate = "gate" if gates.shared else f"gate {beta}"
        checkpoint = place / folder_name(gate) / "checkpoints/best.ckpt"
        evaluate = ["src.evaluate", *trained, f"gate={checkpoint}", beta]
        name = f"scores {beta}"
        steps.append(Step(run_job(name, place / folder_name(name), evaluate, (gate,)), values_of([beta])))
    return steps


def values_of(overrides: Sequence[str]) -> dict[str, str]:
    """Return the values of overrides by their names."""
    return dict(override.split("=", 1) for override in overrides if "=" in override)


def gates_of(cfg: DictConfig, folder: Path, shared: list[str]) -> Gates:
    """Return the gates of the chain. Refuse an experiment that trains no gate."""
    name = cfg.gates or default_gates(HydraConfig.get().runtime.choices)
    for override in cfg.gate_overrides:
        if name_of(override) in SET_BY_CHAIN:
            fail(f"gates.{override}: every gate has that from the chain; expected another setting, or betas=[...]")
    overrides = [f"+experiment={name}", *cfg.gate_overrides]
    check([*shared, *overrides, f"hydra.run.dir={quote(str(folder))}"])
    task = configure([*shared, *overrides]).task
    if task._target_ != "src.tasks.gate_training.GateTraining":
        fail(f"gates={name}: an experiment of {task._target_}, expected one of a gate, for example eco_gate_coco")
    return Gates(overrides, list(task.gate.inputs), shared=takes_any_beta(task.target) and cfg.evaluate)


def default_gates(choices: Mapping[str, str]) -> str:
    """Return the experiment of the gates for a model on a data set, else that of the data set: eco_gate_coco."""
    data = choices["data"].split("_")[0]
    own = f"eco_gate_{choices['model']}_{data}"
    return own if own in GlobalHydra.instance().config_loader().get_group_options("experiment") else f"eco_gate_{data}"


def arguments(overrides: list[str]) -> list[str]:
    """Return the overrides with all `gates.` settings as one list, after the settings saved in `parent`."""
    overrides = [*map(expand_home, overrides)]
    if {"-m", "--multirun"} & set(overrides):
        fail("-m: a chain has its own sweep, over betas=[...]; for other parents start it once for each")
    values = values_of(overrides)
    if file := values.get("parent"):
        if not Path(file).is_file():
            fail(f"parent={file}: no such file, looked in {Path.cwd()}")
        for name in {"+experiment", "experiment"} & values.keys():
            fail(f"experiment={values[name]}: parent={file} brings its own, expected one of the two")
    gates = [quote(override.replace("gates.", "", 1)) for override in overrides if is_gate_setting(override)]
    others = [override for override in overrides if not is_gate_setting(override)]
    if gates:
        others.append(f"gate_overrides=[{','.join(gates)}]")
    return saved_overrides(others, setting="parent")


def is_gate_setting(override: str) -> bool:
    return name_of(override).startswith("gates.")


if __name__ == "__main__":
    run(eco, arguments(sys.argv[1:]), "eco")
