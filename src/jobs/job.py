"""A command that runs in a process of its own, here or on a cluster, and the folder of its results."""

import csv
import ctypes
import os
import runpy
import signal
import subprocess
import sys
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from src.config.overrides import quote
from src.records.run_folder import finished
from src.system.atomic import write_text

DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


class Job(NamedTuple):
    """A command and the folder of its results."""

    name: str
    arguments: list[str]  # of python -m
    folder: Path  # the run folder; the log is written there too
    after: tuple[str, ...] = ()  # names of the jobs that have to finish first
    steps: int | None = None  # training steps, for the progress bar

    @property
    def line(self) -> str:
        return " ".join(self.arguments)

    @property
    def begun(self) -> bool:
        """Whether this command was the last one started in the folder."""
        file = self.folder / "begun"
        return file.is_file() and file.read_text() == self.line

    @property
    def done(self) -> bool:
        """Whether this command has finished, according to its files in the folder."""
        return self.begun and finished(self.folder)

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def begin(self) -> list[str]:
        """Mark the job as started and return extra arguments: an interrupted training resumes from its checkpoint.

        A checkpoint that another command left in the folder is removed, so that this command never resumes from it.
        """
        last = self.folder / "checkpoints/last.ckpt"
        if not self.begun:
            last.unlink(missing_ok=True)
            write_text(self.line, self.folder / "begun")
        return ["ckpt_path=auto"] if last.is_file() else []

    def start(self, environment: dict[str, str]) -> subprocess.Popen:
        """Start the command as a process, with additional environment variables."""
        resume = self.begin()
        command = [sys.executable, "-m", *self.arguments, *resume]
        with open(self.log, "a" if resume else "w") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                preexec_fn=die_with_parent,
                start_new_session=True,  # Ctrl-C reaches only the parent, which ends its jobs
            )

    def steps_done(self) -> int:
        """Return the newest step in metrics.csv, 0 before there is one."""
        metrics = self.folder / "metrics.csv"
        if not metrics.is_file():
            return 0
        with open(metrics) as file:  # polled often: parse the last line only
            row = next(csv.DictReader([next(file, ""), *deque(file, maxlen=1)]), {})
        return int(row.get("step") or 0)


def run_job(
    name: str, folder: Path, arguments: list[str], after: tuple[str, ...] = (), steps: int | None = None
) -> Job:
    """Return a job whose run folder is `folder`."""
    return Job(name, [*arguments, f"hydra.run.dir={quote(str(folder))}"], folder, after, steps)


class Requeueable(NamedTuple):
    """A job that submitit calls in a process of the cluster. Called again after a requeue, it resumes."""

    job: Job

    def __call__(self) -> None:
        """Run the command in this process, which receives the cluster's signals. Raises SystemExit if it fails."""
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # else Lightning would requeue too; submitit uses USR2
        os.register_at_fork(after_in_child=partial(signal.signal, signal.SIGUSR2, signal.SIG_IGN))  # in workers
        module, *arguments = self.job.arguments
        sys.argv = [module, *arguments, *self.job.begin()]
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    def checkpoint(self) -> Any:
        """Return what submitit requeues at the time limit: this job."""
        from submitit.helpers import DelayedSubmission  # of the extra `slurm`

        return DelayedSubmission(self)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, even by kill -9 (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def failure_reason(job: Job, status: int) -> str:
    """Return the last error in the log of a failed job, else its last line (not of srun), else its exit status."""
    if status == 0:
        return f"exit status 0, but results in {job.folder} are incomplete: scores are missing or damaged"
    text = job.log.read_text(errors="replace") if job.log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("srun: ")]
    errors = [line for line in lines if line.startswith("error: ")]  # a progress bar may end after it
    return (errors or lines or [f"exit status {status}"])[-1]
