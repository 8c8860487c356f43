"""Run a sweep on SLURM: jobs are submitted instead of started as processes; folders and tables are the same.

The settings are those of hydra-submitit-launcher, and submitit submits and requeues. The launcher of that package is
not used: it stops waiting for all jobs when one is lost, and it counts a job that raised as a success.
"""

import getpass
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hydra_plugins.processes import ProcessLauncher
from rich.console import Console

from src.jobs.job import Job, Requeueable, failure_reason
from src.jobs.running import not_done
from src.system.atomic import write_text
from src.system.signals import Interrupted
from src.system.terminal import fail

SECONDS_BETWEEN_LOOKS = 10


class SlurmLauncher(ProcessLauncher):
    """Submits the jobs of a sweep that are neither done nor queued, waits for all, and prints their results.

    Args:
        submitit_folder: folder of submitit's files and logs; log.txt in a job's folder is a link to its log.
        max_num_timeout: how often a job that reached its time limit is requeued.
        settings: the other settings of hydra-submitit-launcher's `submitit_slurm`.
    """

    def __init__(self, submitit_folder: str, max_num_timeout: int, **settings: Any):
        super().__init__()
        self.folder, self.max_num_timeout, self.settings = submitit_folder, max_num_timeout, settings

    def check_devices(self, devices: Any) -> None:
        """Refuse `trainer.devices` that differ from the number of processes that SLURM starts."""
        tasks = self.settings["tasks_per_node"]
        if devices != "auto" and str(devices) != str(tasks):
            fail(f"trainer.devices={devices}: hydra.launcher.tasks_per_node={tasks}, expected the same, or auto")

    def run(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Let SLURM run the jobs that are not done. Returns the reasons of failures by job name."""
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf  # of the extra `slurm`
        from submitit import AutoExecutor

        console = Console(stderr=True)
        left = not_done(jobs, console)
        try:
            queued = queued_jobs()
            new = [job for job in left if slurm_id(job) not in queued]
            executor = AutoExecutor(self.folder, cluster="slurm", slurm_max_num_timeout=self.max_num_timeout)
            shared = BaseQueueConf.__dataclass_fields__
            executor.update_parameters(
                **{name if name in shared else f"slurm_{name}": value for name, value in self.settings.items()}
            )
            submitted = executor.submit_array([Requeueable(job) for job in new]) if new else []
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            fail(f"hydra/launcher=slurm: {error}")
        for job, slurm_job in zip(new, submitted, strict=True):
            write_text(slurm_job.job_id, job.folder / "slurm_id")
            job.log.unlink(missing_ok=True)
            job.log.symlink_to(os.path.relpath(slurm_job.paths.stdout, job.folder))
        for job in left:
            console.print(f"{job.name}: SLURM job {slurm_id(job)}, {job.log}", highlight=False, soft_wrap=True)
        try:
            wait(left)
        except Interrupted as end:
            fail(f"{end}; the jobs keep running (scancel ends them); the same command waits for them again", end.status)
        return {job.name: failure_reason(job, 1) for job in left if not job.done}


def slurm_id(job: Job) -> str:
    """Return the SLURM id of a job, empty if it was not submitted."""
    file = job.folder / "slurm_id"
    return file.read_text() if file.is_file() else ""


def wait(jobs: Sequence[Job]) -> None:
    """Wait until every job is done or has left the queue. A requeued job stays in the queue."""
    pending = [job for job in jobs if not job.done]
    while pending:
        with suppress(subprocess.SubprocessError):  # SLURM may be unavailable for a while
            queued = queued_jobs()
            pending = [job for job in pending if slurm_id(job) in queued]
        time.sleep(SECONDS_BETWEEN_LOOKS)
        pending = [job for job in pending if not job.done]


def queued_jobs() -> set[str]:
    """Return the ids of the user's waiting and running jobs. Raises SubprocessError if SLURM does not answer."""
    command = ["squeue", f"--user={getpass.getuser()}", "--array", "--noheader", "--format=%i"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split())
