"""Run a sweep as processes: each job has its own process, GPU, and a folder named after its swept values.

The same command resumes the sweep: finished jobs are kept, interrupted ones resume, failed ones run again.
"""

import os
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src.config.overrides import name_of, parsed
from src.config.rules import RULES
from src.config.search_path import search_path
from src.jobs.job import Job, run_job
from src.jobs.results import failure_table, mark_pareto, objectives, result_tables, rows_of, scores_of
from src.jobs.running import run_all, visible_gpus, wants_several
from src.jobs.unchanged import check_unchanged
from src.records.csv_file import write_csv
from src.records.run_folder import digest, folder_name, locked
from src.system.terminal import fail

OmegaConf.register_new_resolver(
    "digest", lambda value, *more: digest(" ".join(sorted(map(str, [*value, *chain(*more)])))), replace=True
)


class ProcessLauncher(Launcher, Callback):
    """Runs the jobs of a sweep with `run_all` and prints their results.

    Args:
        at_once: number of jobs side by side; None: as many as there are GPUs, else one.
        on_failure: "continue" or "stop".
    """

    def __init__(self, at_once: int | None = None, on_failure: str = "continue"):
        self.at_once, self.on_failure = at_once, on_failure
        self.config: Any = None
        self.context: Any = None
        self.jobs: dict[str, tuple[Job, dict[str, str]]] = {}  # of all batches, with their swept values
        self.failed: dict[str, str] = {}
        self.rows: list[dict[str, Any]] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the configuration, and register for the end of the sweep."""
        self.config, self.context = config, hydra_context
        hydra_context.callbacks.callbacks.append(self)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs. Each returns quality and GFLOPs, or None if it failed.

        A job that a search proposes again is not run again.
        """
        self.check()
        folder = Path(self.config.hydra.sweep.dir)
        keys = swept(self.config)
        with locked(folder):
            batch = [self.job(folder, list(overrides), keys) for overrides in job_overrides]
            new = {job.name: (job, values) for job, values in batch if job.name not in self.jobs}
            self.jobs |= new
            os.environ.setdefault("WANDB_RUN_GROUP", folder.name)  # groups the jobs in W&B
            self.failed |= self.run([job for job, _ in new.values()])
            self.rows = mark_pareto(
                [row for job, values in self.jobs.values() for row in rows_of(job, values, self.failed)]
            )
            write_csv(self.rows, folder / "table.csv")
        if self.failed and self.on_failure == "stop":
            self.on_multirun_end(self.config)
        return [self.result(job, overrides) for (job, _), overrides in zip(batch, job_overrides, strict=True)]

    def result(self, job: Job, overrides: Sequence[str]) -> JobReturn:
        """Return a job's quality and GFLOPs the way Hydra's sweepers expect them."""
        result = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED, working_dir=str(job.folder))
        result.return_value = None if job.name in self.failed else objectives(scores_of(job.folder))
        return result

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the results of all jobs; exit with status 1 if one failed."""
        console = Console()
        for table in result_tables(self.rows, f"{config.hydra.sweep.dir}/table.csv"):
            console.print(table)
        if self.failed:
            console.print(failure_table(self.failed, {name: job for name, (job, _) in self.jobs.items()}))
            sys.exit(1)

    def check(self) -> None:
        """Exit if a setting of the sweeper or the launcher does not work here."""
        sweeper = self.config.hydra.sweeper
        if "direction" in sweeper and sweeper.direction != ["maximize", "minimize"]:
            fail(f"hydra.sweeper.direction={sweeper.direction}: expected [maximize, minimize], of quality and GFLOPs")
        for name in ("search_space", "custom_search_space"):  # their values would be missing in the jobs' names
            if sweeper.get(name):
                fail(
                    f"hydra.sweeper.{name}={sweeper[name]}: expected null; put the searched settings into "
                    "hydra.sweeper.params"
                )
        for name, value in (("at_once", self.at_once), ("on_failure", self.on_failure)):
            if not RULES[name].holds(value):
                fail(f"hydra.launcher.{name}={value}: expected {RULES[name].expected}")

    def check_devices(self, devices: Any) -> None:
        """Exit if a job wants several GPUs."""
        if wants_several(devices):
            fail(
                f"trainer.devices={devices}: a job of a sweep has one GPU to itself, expected 1; to use "
                "several, run it alone, without -m"
            )

    def run(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Run the jobs that are not done. Returns the reasons of failures by job name."""
        return run_all(jobs, self.at_once or 1, visible_gpus()[: self.at_once], self.on_failure)

    def job(self, folder: Path, overrides: list[str], keys: Sequence[str]) -> tuple[Job, dict[str, str]]:
        """Return one job of the sweep and its swept values."""
        cfg = self.context.config_loader.load_sweep_config(self.config, overrides)
        self.check_devices(cfg.trainer.devices)
        values = swept_values(overrides, keys)
        name = ",".join(f"{key}={value}" for key, value in values.items()) or "job"
        place = folder / folder_name(name)
        module = sys.modules["__main__"].__spec__.name  # type: ignore[union-attr]
        arguments = [module, *search_path(self.config.hydra), *overrides, "hydra.mode=RUN"]
        steps = cfg.trainer.max_steps if cfg.trainer.get("max_epochs") is None else None
        job = run_job(name, place, arguments, steps=steps)
        check_unchanged(job, cfg, "hydra.sweep.dir")
        return job, values


def swept(config: DictConfig) -> list[str]:
    """Return the names of the settings that have several values in a sweep."""
    overrides = map(parsed, config.hydra.overrides.task)
    names = [override.key_or_group for override in overrides if override.is_sweep_override()]
    return [*names, *map(str, config.hydra.sweeper.get("params") or {})]


def swept_values(overrides: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Return a job's values of the swept settings."""
    return {name_of(one): one.partition("=")[2] for one in overrides if "=" in one and name_of(one) in keys}
