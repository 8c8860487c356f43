"""A sweep as processes: each job has its own, a GPU to itself, and a folder named after what it was given.

The same command again goes on: what is finished is kept, what was broken off is continued, what failed runs anew.
"""

import fcntl
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Column, Table

from src.command_line import fail
from src.front import front
from src.jobs import Job, run_all
from src.rows import write_csv

LONGEST = 100  # characters of a folder's name
SHOWN = ("pq", "miou", "ap", "quality", "utility", "depth", "gflops", "total_gflops")
QUALITIES, COSTS = ("pq", "ap", "miou", "quality"), ("total_gflops", "gflops")  # the first that a row has counts

OmegaConf.register_new_resolver("digest", lambda value: digest(" ".join(sorted(map(str, value)))), replace=True)


class ProcessLauncher(Launcher, Callback):
    """Runs the jobs of a sweep as `run_all` does, and tabulates what came of them.

    Args:
        at_once: how many side by side; null: as many as there are GPUs, else one.
        on_failure: continue or stop.
    """

    def __init__(self, at_once: int | None = None, on_failure: str = "continue"):
        self.at_once, self.on_failure = at_once, on_failure
        self.config: Any = None
        self.context: Any = None
        self.jobs: dict[str, tuple[Job, dict[str, str]]] = {}  # of all batches, with what each was given
        self.failed: dict[str, str] = {}
        self.rows: list[dict[str, Any]] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives, and ask to be told of the sweep's end."""
        self.config, self.context = config, hydra_context
        hydra_context.callbacks.callbacks.append(self)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs; each comes back with its quality and GFLOPs, or with None if it failed.

        A job that a search asks for again is not run again.
        """
        check(self.at_once, self.on_failure, self.config.hydra.sweeper)
        folder, keys = Path(self.config.hydra.sweep.dir), swept(self.config)
        with locked(folder):
            given = [given_to(overrides, keys) for overrides in job_overrides]
            batch = [self.job(folder, *one) for one in zip(map(list, job_overrides), given, strict=True)]
            new = {
                job.name: (job, values) for job, values in zip(batch, given, strict=True) if job.name not in self.jobs
            }
            self.jobs |= new
            os.environ.setdefault("WANDB_RUN_GROUP", folder.name)  # W&B shows the jobs together
            jobs = [job for job, _ in new.values()]
            self.failed |= run_all(jobs, self.at_once or 1, visible_gpus()[: self.at_once], self.on_failure)
            self.rows = marked([row for job, values in self.jobs.values() for row in rows_of(job, values, self.failed)])
            write_csv(self.rows, folder / "table.csv")
        if self.failed and self.on_failure == "stop":
            self.on_multirun_end(self.config)
        returns = []
        for job, overrides in zip(batch, job_overrides, strict=True):
            one = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, working_dir=str(job.folder))
            one.return_value = None if job.name in self.failed else objectives(scores_of(job.folder))
            returns.append(one)
        return returns

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Say what came of all jobs; one that failed makes the exit status 1."""
        console = Console()
        console.print(table_of(self.rows, f"{config.hydra.sweep.dir}/table.csv"))
        if any(row.get("front") for row in self.rows):
            console.print(front_of(self.rows))
        if self.failed:
            console.print(failures(self.failed, {name: job for name, (job, _) in self.jobs.items()}))
            sys.exit(1)

    def job(self, folder: Path, overrides: list[str], given: dict[str, str]) -> Job:
        """The command of one job. Raises SystemExit for one that wants several GPUs."""
        cfg = self.context.config_loader.load_sweep_config(self.config, overrides)
        if visible_gpus() and cfg.trainer.devices not in ("auto", 1, "1"):
            fail(
                f"trainer.devices={cfg.trainer.devices}: a job of a sweep has one GPU to itself, expected 1; run it "
                "alone, without -m, to have it on several"
            )
        name = ",".join(f"{key}={value}" for key, value in given.items()) or "job"
        place = folder / shorten(re.sub(r"[^\w.,=+\[\]-]", "_", name))
        module = sys.modules["__main__"].__spec__.name  # type: ignore[union-attr]
        alone = ["hydra.mode=RUN", f"hydra.run.dir={quote(str(place))}"]
        bounded = cfg.trainer.get("max_epochs") is None
        return Job(name, [module, *overrides, *alone], place, steps=cfg.trainer.max_steps if bounded else None)


def check(at_once: int | None, on_failure: str, sweeper: Any) -> None:
    """Refuse settings that cannot be."""
    if "direction" in sweeper and sweeper.direction != ["maximize", "minimize"]:
        fail(f"hydra.sweeper.direction={sweeper.direction}: expected [maximize, minimize], of quality and GFLOPs")
    if on_failure not in ("continue", "stop"):
        fail(f"hydra.launcher.on_failure={on_failure}: expected continue or stop")
    for name in ("search_space", "custom_search_space"):  # whose values would be in no job's name
        if sweeper.get(name):
            fail(f"hydra.sweeper.{name}={sweeper[name]}: expected null; what is searched goes to hydra.sweeper.params")
    if at_once is not None and (type(at_once) is not int or at_once < 1):
        fail(f"hydra.launcher.at_once={at_once}: expected a whole number from 1, or null")


def visible_gpus() -> list[str]:
    """The GPUs that jobs may have, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def swept(config: DictConfig) -> list[str]:
    """Names of what a sweep gives several values."""
    parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    typed = [override.key_or_group for override in parsed if override.is_sweep_override()]
    return [*typed, *map(str, config.hydra.sweeper.get("params") or {})]


def given_to(overrides: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """What one job of a sweep has that others may not have."""
    pairs = (override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    return {key: value for key, value in pairs if key in keys}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder to one sweep."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fail(f"{folder}: a sweep is running there; wait for it, or give this one hydra.sweep.dir=FOLDER of its own")
        yield


def rows_of(job: Job, given: dict[str, str], failed: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What a job came to, a row for each exit or chooser of exits."""
    status = "failed" if job.name in failed else "done" if job.done else "not run"
    for who, scores in scores_of(job.folder).items() if status == "done" else ():
        yield {"job": job.name, **given, "status": status, "exit": who, **scores}
    if status != "done":
        yield {"job": job.name, **given, "status": status}


def scores_of(run: Path) -> dict[str, dict[str, float]]:
    """The last scores of a run folder, by exit or by who chose the exits."""
    scores, gate = run / "scores.json", run / "gate.json"
    if gate.is_file():
        return json.loads(gate.read_text())["outcomes"]
    if not scores.is_file():
        return {}
    content = json.loads(scores.read_text())
    return content["exits"] | ({"gate": content["gate"]} if "gate" in content else {})


def objectives(scores: dict[str, dict[str, float]]) -> list[float] | None:
    """Quality and GFLOPs of the gate, or of the deepest exit; None where they are missing or NaN."""
    row = scores["gate"] if "gate" in scores else scores[max(scores, key=int)] if scores else {}
    values = [value_of(row, QUALITIES), value_of(row, COSTS)]
    return values if all(map(math.isfinite, values)) else None


def value_of(row: dict[str, Any], names: Sequence[str]) -> float:
    """The first of some scores that a row has."""
    return next((row[name] for name in names if name in row), math.nan)


def attainable(row: dict[str, Any]) -> bool:
    """Whether a row is of fixed exits, or of a gate where there are gates."""
    return "utility" not in row or row["exit"] == "gate"


def marked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, those that can be had with `front`: whether no other is as good for less."""
    points = [(value_of(row, COSTS), value_of(row, QUALITIES)) for row in rows]
    scored = [i for i, row in enumerate(rows) if attainable(row) and all(map(math.isfinite, points[i]))]
    for i, best in zip(scored, front([points[i] for i in scored]), strict=True):
        rows[i]["front"] = best
    return rows


def table_of(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """The scores that count: of fixed exits, or of a gate."""
    rows = [row for row in rows if attainable(row)]
    names = [name for name in SHOWN if any(name in row for row in rows)]
    table = Table(Column("job", overflow="fold"), "status", "exit", title=title)
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        cells = (f"{row[name]:.4g}" if name in row else "" for name in names)
        table.add_row(row["job"], row["status"], str(row.get("exit", "")), *cells)
    return table


def front_of(rows: Sequence[dict[str, Any]]) -> Table:
    """The Pareto set, cheapest first."""
    best = sorted((row for row in rows if row.get("front")), key=lambda row: value_of(row, COSTS))
    scored = sum("front" in row for row in rows)
    table = Table(
        Column("job", overflow="fold"), "exit", title=f"Pareto set: {len(best)} of {scored} are beaten by none"
    )
    for name in ("quality", "GFLOPs"):
        table.add_column(name, justify="right")
    for row in best:
        table.add_row(row["job"], row["exit"], *(f"{value_of(row, names):.4g}" for names in (QUALITIES, COSTS)))
    return table


def failures(failed: dict[str, str], jobs: dict[str, Job]) -> Table:
    """Which jobs failed, why, and where that is written."""
    table = Table(
        *(Column(name, overflow="fold") for name in ("job", "why", "log")),
        title=f"{len(failed)} of {len(jobs)} jobs failed",
        style="red",
    )
    for name, why in failed.items():
        table.add_row(name, why, str(jobs[name].log))
    return table


def shorten(name: str) -> str:
    """A name that a folder can have."""
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}_{digest(name)}"


def digest(text: str) -> str:
    """Eight letters that stand for a text."""
    return sha256(text.encode()).hexdigest()[:8]


def quote(value: str) -> str:
    """A value as Hydra reads it, whatever it contains."""
    return "'" + value.replace("'", "\\'") + "'"
