"""Commands of this project run side by side, each a process of its own; what is finished is not run again."""

import csv
import ctypes
import os
import runpy
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from src.records.run_folder import begin, finished
from src.system.atomic import write_text
from src.system.cpus import processors
from src.system.signals import Interrupted

DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG
NOT_RUN = "not run"
SECONDS_TO_END = 60  # for a job that is told to


class Job(NamedTuple):
    """One command.

    `folder` is where it runs, and keeps its log; `after` names the jobs it builds on; `steps` is how many a training
    has, whose folder is its run folder.
    """

    name: str
    arguments: list[str]  # of python -m
    folder: Path
    after: tuple[str, ...] = ()
    steps: int | None = None

    @property
    def line(self) -> str:
        return " ".join(self.arguments)

    @property
    def begun(self) -> bool:
        """Whether this very command was the last one that began in the folder."""
        file = self.folder / "begun"
        return file.is_file() and file.read_text() == self.line

    @property
    def done(self) -> bool:
        """Whether this very command has come to its end, as what it left in the folder says."""
        return self.begun and finished(self.folder)

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def begin(self) -> list[str]:
        """What its command has besides: a training that was broken off goes on from its last checkpoint.

        A checkpoint that another command left there is removed, lest this one went on from it the next time.
        """
        last = self.folder / "checkpoints/last.ckpt"
        if not self.begun:
            last.unlink(missing_ok=True)
            write_text(self.line, self.folder / "begun")
        return ["ckpt_path=auto"] if last.is_file() else []

    def start(self, environment: dict[str, str]) -> subprocess.Popen:
        """Run it as a process."""
        besides = self.begin()
        command = [sys.executable, "-m", *self.arguments, *besides]
        with open(self.log, "a" if besides else "w") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                preexec_fn=die_with_parent,
                start_new_session=True,  # Ctrl-C is for the command that runs the jobs, which ends them
            )

    def steps_done(self) -> int:
        """The newest step that a training has logged."""
        metrics = self.folder / "metrics.csv"
        if not metrics.is_file():
            return 0
        with open(metrics) as file:  # which grows long, and is asked often: only its last line is parsed
            row = next(csv.DictReader([next(file, ""), *deque(file, maxlen=1)]), {})
        return int(row.get("step") or 0)


def visible_gpus() -> list[str]:
    """The GPUs that jobs may have, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def wants_several(devices: Any) -> bool:
    """Whether `trainer.devices` asks for more than the one GPU that a job has."""
    return bool(visible_gpus()) and devices not in ("auto", 1, "1")


class Requeueable(NamedTuple):
    """A job as submitit calls it, in a process that the cluster gave: called again after a requeue, it goes on."""

    job: Job

    def __call__(self) -> None:
        """Run the command in this very process, which gets the cluster's signals. Raises SystemExit if it fails."""
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # else Lightning takes it to requeue too; submitit's is USR2
        os.register_at_fork(after_in_child=partial(signal.signal, signal.SIGUSR2, signal.SIG_IGN))  # nor do workers
        module, *arguments = self.job.arguments
        sys.argv = [module, *arguments, *self.job.begin()]
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    def checkpoint(self) -> Any:
        """What submitit is to requeue when the time is up: the same."""
        from submitit.helpers import DelayedSubmission  # of the extra `slurm`

        return DelayedSubmission(self)


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends, even by kill -9 (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def run_all(jobs: Sequence[Job], at_once: int, gpus: Sequence[str] = (), on_failure: str = "stop") -> dict[str, str]:
    """Run what is not done, in an order that respects `after`; returns why jobs failed, by name.

    Args:
        at_once: how many run side by side, sharing the cores; OMP_NUM_THREADS, where it is set, is what each gets.
        gpus: each job has one of these to itself; then as many run at once.
        on_failure: stop: the others are stopped too, and can go on later; continue: those that can still run do.
    """
    share = str(max(processors() // (len(gpus) or at_once), 1))
    threads = os.environ.get("OMP_NUM_THREADS", share)  # less than a share where others use the machine
    slots = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus] or [{"OMP_NUM_THREADS": threads} for _ in range(at_once)]
    console = Console(stderr=True)
    waiting = not_done(jobs, console)
    done = {job.name for job in jobs if job not in waiting}
    running: dict[str, tuple[Job, subprocess.Popen, dict[str, str], TaskID]] = {}
    failed: dict[str, str] = {}
    columns = (TextColumn("{task.description:36}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    try:
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            whole = progress.add_task(f"{len(jobs)} jobs", total=len(jobs), completed=len(done))
            while (waiting or running) and not (failed and on_failure == "stop"):
                for job in [job for job in waiting if done.issuperset(job.after)][: len(slots)]:
                    waiting.remove(job)
                    slot = slots.pop()
                    running[job.name] = job, job.start(slot), slot, progress.add_task(job.name, total=job.steps)
                time.sleep(0.2)
                for job, process, slot, bar in list(running.values()):
                    if job.steps:
                        progress.update(bar, completed=job.steps_done())
                    if process.poll() is None:
                        continue
                    if job.done:
                        done.add(job.name)
                    else:
                        failed[job.name] = last_words(job, process.returncode)
                    del running[job.name]
                    slots.append(slot)
                    progress.remove_task(bar)
                    progress.advance(whole)
                lost = [job for job in waiting if failed.keys() & set(job.after)]
                for job in lost:
                    waiting.remove(job)
                    failed[job.name] = f"{NOT_RUN}, it builds on {', '.join(failed.keys() & set(job.after))}"
    except Interrupted as interrupted:
        interrupted.kept = "the same command goes on with the jobs that are not done"
        raise
    finally:
        end([process for _, process, *_ in running.values()])
    return failed


def end(processes: Sequence[subprocess.Popen]) -> None:
    """End processes so that they can go on later: a training saves the step that it is at; who hangs is killed."""
    try:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + SECONDS_TO_END
        for process in processes:
            process.wait(max(deadline - time.monotonic(), 0))
    except (subprocess.TimeoutExpired, Interrupted):  # a second signal: now
        for process in processes:
            process.kill()


def finished_of(jobs: Sequence[Job]) -> list[Job]:
    """Jobs that have come to their end, and all they build on too."""
    finished, before = [job for job in jobs if job.done], -1
    while len(finished) != before:
        before, names = len(finished), {job.name for job in finished}
        finished = [job for job in finished if names.issuperset(job.after)]
    return finished


def not_done(jobs: Sequence[Job], console: Console) -> list[Job]:
    """Jobs that are to run, which are marked so; of the others it is said that they are done."""
    finished = finished_of(jobs)
    for job in finished:
        console.print(f"{job.name}: done already, {job.folder} (remove it to run it again)", highlight=False)
    left = [job for job in jobs if job not in finished]
    for job in left:
        begin(job.folder)  # what is there is of another command, or made from what runs anew
    return left


def last_words(job: Job, status: int) -> str:
    """Why a job failed: its last error in one line, else its last line that says something; SLURM's last is not one."""
    if status == 0:
        return f"exit status 0, but {job.folder} does not have all that it should: its scores are missing or damaged"
    text = job.log.read_text(errors="replace") if job.log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("srun: ")]
    errors = [line for line in lines if line.startswith("error: ")]  # behind which a progress bar may still end
    return (errors or lines or [f"exit status {status}"])[-1]
