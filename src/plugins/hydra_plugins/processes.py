"""A sweep as processes: each job has its own, a GPU to itself, and a folder named after what it was given.

The same command again goes on: what is finished is kept, what was broken off is continued, what failed runs anew.
"""

import fcntl
import json
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
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from src.command_line import fail
from src.jobs import Job, run_all
from src.rows import write_csv

LONGEST = 100  # characters of a folder's name
SHOWN = ("pq", "miou", "ap", "quality", "utility", "depth", "gflops", "total_gflops")

OmegaConf.register_new_resolver("digest", lambda value: digest(" ".join(sorted(map(str, value)))), replace=True)


class ProcessLauncher(Launcher):
    """Runs the jobs of a sweep as `run_all` does, and tabulates what came of them.

    Args:
        at_once: how many side by side; null: as many as there are GPUs, else one.
        on_failure: continue or stop.
    """

    def __init__(self, at_once: int | None = None, on_failure: str = "continue"):
        self.at_once, self.on_failure = at_once, on_failure
        self.config: Any = None
        self.context: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self.config, self.context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs; a job that fails makes the exit status 1, after all others have run."""
        self.check()
        folder, keys = Path(self.config.hydra.sweep.dir), swept(self.config)
        with locked(folder):
            given = [given_to(overrides, keys) for overrides in job_overrides]
            jobs = [self.job(folder, *one) for one in zip(map(list, job_overrides), given, strict=True)]
            os.environ.setdefault("WANDB_RUN_GROUP", folder.name)  # W&B shows the jobs together
            failed = self.run(jobs)
            rows = [row for job, values in zip(jobs, given, strict=True) for row in rows_of(job, values, failed)]
            write_csv(rows, folder / "table.csv")
        console = Console()
        console.print(table_of(rows, f"{folder}/table.csv"))
        if failed:
            console.print(failures(failed, {job.name: job for job in jobs}))
            sys.exit(1)
        return [
            JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, working_dir=str(job.folder))
            for job, overrides in zip(jobs, job_overrides, strict=True)
        ]

    def check(self) -> None:
        """Refuse settings that cannot be."""
        if self.on_failure not in ("continue", "stop"):
            fail(f"hydra.launcher.on_failure={self.on_failure}: expected continue or stop")
        if self.at_once is not None and (type(self.at_once) is not int or self.at_once < 1):
            fail(f"hydra.launcher.at_once={self.at_once}: expected a whole number from 1, or null")

    def check_devices(self, devices: Any) -> None:
        """Refuse a job that wants several GPUs."""
        if visible_gpus() and devices not in ("auto", 1, "1"):
            fail(
                f"trainer.devices={devices}: a job of a sweep has one GPU to itself, expected 1; run it "
                "alone, without -m, to have it on several"
            )

    def run(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Run what is not done; returns why jobs failed, by name."""
        return run_all(jobs, self.at_once or 1, visible_gpus()[: self.at_once], self.on_failure)

    def job(self, folder: Path, overrides: list[str], given: dict[str, str]) -> Job:
        """The command of one job."""
        cfg = self.context.config_loader.load_sweep_config(self.config, overrides)
        self.check_devices(cfg.trainer.devices)
        name = ",".join(f"{key}={value}" for key, value in given.items()) or "job"
        place = folder / shorten(re.sub(r"[^\w.,=+\[\]-]", "_", name))
        module = sys.modules["__main__"].__spec__.name  # type: ignore[union-attr]
        alone = ["hydra.mode=RUN", f"hydra.run.dir={quote(str(place))}"]
        bounded = cfg.trainer.get("max_epochs") is None
        return Job(name, [module, *overrides, *alone], place, steps=cfg.trainer.max_steps if bounded else None)


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


def table_of(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """The scores that count: of fixed exits, or of a gate."""
    rows = [row for row in rows if "utility" not in row or row["exit"] == "gate"]
    names = [name for name in SHOWN if any(name in row for row in rows)]
    table = Table("job", "status", "exit", title=title)
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        cells = (f"{row[name]:.4g}" if name in row else "" for name in names)
        table.add_row(row["job"], row["status"], str(row.get("exit", "")), *cells)
    return table


def failures(failed: dict[str, str], jobs: dict[str, Job]) -> Table:
    """Which jobs failed, why, and where that is written."""
    table = Table("job", "why", "log", title=f"{len(failed)} of {len(jobs)} jobs failed", style="red")
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
