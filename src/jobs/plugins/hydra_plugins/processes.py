"""A sweep as processes: each job has its own, a GPU to itself, and a folder named after what it was given.

The same command again goes on: what is finished is kept, what was broken off is continued, what failed runs anew.
"""

import os
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src.config.rules import RULES
from src.config.schema import quote
from src.config.search_path import search_path
from src.jobs.results import failures, front_of, marked, objectives, rows_of, scores_of, table_of
from src.jobs.running import Job, run_all, visible_gpus, wants_several
from src.jobs.unchanged import check_unchanged
from src.records.csv_file import write_csv
from src.records.run_folder import digest, folder_name, locked
from src.system.terminal import fail

OmegaConf.register_new_resolver(
    "digest", lambda value, *more: digest(" ".join(sorted(map(str, [*value, *chain(*more)])))), replace=True
)


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
        self.check()
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
            self.failed |= self.run(jobs)
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

    def check(self) -> None:
        """Refuse settings that cannot be."""
        sweeper = self.config.hydra.sweeper
        if "direction" in sweeper and sweeper.direction != ["maximize", "minimize"]:
            fail(f"hydra.sweeper.direction={sweeper.direction}: expected [maximize, minimize], of quality and GFLOPs")
        for name in ("search_space", "custom_search_space"):  # whose values would be in no job's name
            if sweeper.get(name):
                fail(
                    f"hydra.sweeper.{name}={sweeper[name]}: expected null; what is searched goes to "
                    "hydra.sweeper.params"
                )
        for name, value in (("at_once", self.at_once), ("on_failure", self.on_failure)):
            if not RULES[name].holds(value):
                fail(f"hydra.launcher.{name}={value}: expected {RULES[name].expected}")

    def check_devices(self, devices: Any) -> None:
        """Refuse a job that wants several GPUs."""
        if wants_several(devices):
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
        place = folder / folder_name(name)
        module = sys.modules["__main__"].__spec__.name  # type: ignore[union-attr]
        alone = ["hydra.mode=RUN", f"hydra.run.dir={quote(str(place))}"]
        bounded = cfg.trainer.get("max_epochs") is None
        arguments = [module, *search_path(self.config.hydra), *overrides, *alone]
        job = Job(name, arguments, place, steps=cfg.trainer.max_steps if bounded else None)
        check_unchanged(job, cfg, "hydra.sweep.dir")
        return job


def swept(config: DictConfig) -> list[str]:
    """Names of what a sweep gives several values."""
    parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    typed = [override.key_or_group for override in parsed if override.is_sweep_override()]
    return [*typed, *map(str, config.hydra.sweeper.get("params") or {})]


def given_to(overrides: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """What one job of a sweep has that others may not have."""
    pairs = (override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    return {key: value for key, value in pairs if key in keys}
