"""A sweep on SLURM: what `processes` starts as processes is submitted, with the same folders and the same table.

The settings are hydra-submitit-launcher's, and submitit submits and requeues. That package's own launcher would stop
waiting for all jobs once one is lost, and take a job that raised for one that succeeded.
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

from src.jobs.running import Job, Requeueable, last_words, not_done
from src.system.atomic import write_text
from src.system.signals import Interrupted
from src.system.terminal import fail

SECONDS_BETWEEN_LOOKS = 10


class SlurmLauncher(ProcessLauncher):
    """Submits the jobs of a sweep that are neither done nor in the queue, waits, and tabulates what came of all.

    Args:
        submitit_folder: where submitit keeps its files and the logs; log.txt in the folder of a job is a link to its.
        max_num_timeout: how often a job whose time is up is requeued.
        settings: the others of hydra-submitit-launcher's `submitit_slurm`.
    """

    def __init__(self, submitit_folder: str, max_num_timeout: int, **settings: Any):
        super().__init__()
        self.folder, self.max_num_timeout, self.settings = submitit_folder, max_num_timeout, settings

    def check_devices(self, devices: Any) -> None:
        """Refuse a job that wants other devices than SLURM starts processes for."""
        tasks = self.settings["tasks_per_node"]
        if devices != "auto" and str(devices) != str(tasks):
            fail(f"trainer.devices={devices}: hydra.launcher.tasks_per_node={tasks}, expected the same, or auto")

    def run(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Have SLURM run what is not done; returns why jobs failed, by name."""
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf  # of the extra, without which these
        from submitit import AutoExecutor  # settings do not compose

        console = Console(stderr=True)
        left = not_done(jobs, console)
        try:
            there = queue()
            new = [job for job in left if number_of(job) not in there]
            executor = AutoExecutor(self.folder, cluster="slurm", slurm_max_num_timeout=self.max_num_timeout)
            shared = BaseQueueConf.__dataclass_fields__
            executor.update_parameters(
                **{name if name in shared else f"slurm_{name}": value for name, value in self.settings.items()}
            )
            submitted = executor.submit_array([Requeueable(job) for job in new]) if new else []
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            fail(f"hydra/launcher=slurm: {error}")
        for job, one in zip(new, submitted, strict=True):
            note(job, one)
        for job in left:
            console.print(f"{job.name}: SLURM's {number_of(job)}, {job.log}", highlight=False, soft_wrap=True)
        try:
            wait(left)
        except Interrupted as end:
            fail(f"{end}; the jobs go on (scancel ends them), and the same command waits for them again", end.status)
        return {job.name: last_words(job, 1) for job in left if not job.done}


def note(job: Job, submitted: Any) -> None:
    """Keep in a job's folder which of SLURM's it is, and where it logs."""
    write_text(submitted.job_id, job.folder / "slurm_id")
    job.log.unlink(missing_ok=True)
    job.log.symlink_to(os.path.relpath(submitted.paths.stdout, job.folder))


def number_of(job: Job) -> str:
    """SLURM's number of a job; empty if it has none."""
    noted = job.folder / "slurm_id"
    return noted.read_text() if noted.is_file() else ""


def wait(jobs: Sequence[Job]) -> None:
    """Wait until each is done, or SLURM knows it no more; one that is requeued stays in the queue."""
    while jobs := [job for job in jobs if not job.done]:
        with suppress(subprocess.SubprocessError):  # SLURM may be away for a while
            there = queue()
            jobs = [job for job in jobs if number_of(job) in there]
        time.sleep(SECONDS_BETWEEN_LOOKS)


def queue() -> set[str]:
    """Numbers of the user's jobs that wait or run. Raises SubprocessError where SLURM does not answer."""
    ask = ["squeue", f"--user={getpass.getuser()}", "--array", "--noheader", "--format=%i"]
    return set(subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60).stdout.split())
