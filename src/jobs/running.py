"""Run commands of this project side by side, each in its own process. Finished jobs are not run again."""

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

from src.config.overrides import quote
from src.records.run_folder import begin, finished
from src.system.atomic import write_text
from src.system.cpus import processors
from src.system.signals import Interrupted

DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG
NOT_RUN = "not run"
SECONDS_TO_END = 60  # after SIGTERM; then the job is killed


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


def visible_gpus() -> list[str]:
    """Return the names of the available GPUs, as in CUDA_VISIBLE_DEVICES."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",") if names else [str(number) for number in range(torch.cuda.device_count())]


def wants_several(devices: Any) -> bool:
    """Whether `trainer.devices` asks for more than one GPU, which is all that a job gets."""
    return bool(visible_gpus()) and devices not in ("auto", 1, "1")


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


class RunningJob(NamedTuple):
    """A job that was started, the environment variables reserved for it, and its progress bar."""

    job: Job
    process: subprocess.Popen
    slot: dict[str, str]
    bar: TaskID


class JobRunner:
    """Starts jobs when those they build on are done and a slot is free."""

    def __init__(self, jobs: Sequence[Job], slots: list[dict[str, str]], progress: Progress):
        self.waiting = not_done(jobs, progress.console)
        self.done = {job.name for job in jobs if job not in self.waiting}
        self.running: list[RunningJob] = []
        self.failed: dict[str, str] = {}  # reason by job
        self.free_slots = slots
        self.progress = progress
        self.total = progress.add_task(f"{len(jobs)} jobs", total=len(jobs), completed=len(self.done))

    def start_ready(self) -> None:
        """Start as many jobs as there are free slots."""
        ready = [job for job in self.waiting if self.done.issuperset(job.after)]
        for job in ready[: len(self.free_slots)]:
            self.waiting.remove(job)
            slot = self.free_slots.pop()
            bar = self.progress.add_task(job.name, total=job.steps)
            self.running.append(RunningJob(job, job.start(slot), slot, bar))

    def collect_finished(self) -> None:
        """Free the slots of processes that have ended, and note whether their jobs are done."""
        for running in list(self.running):
            job, process, slot, bar = running
            if job.steps:
                self.progress.update(bar, completed=job.steps_done())
            if process.poll() is None:
                continue
            if job.done:
                self.done.add(job.name)
            else:
                self.failed[job.name] = failure_reason(job, process.returncode)
            self.running.remove(running)
            self.free_slots.append(slot)
            self.progress.remove_task(bar)
            self.progress.advance(self.total)

    def drop_blocked(self) -> None:
        """Give up waiting jobs that build on failed ones."""
        for job in list(self.waiting):
            if failed := [name for name in job.after if name in self.failed]:
                self.waiting.remove(job)
                self.failed[job.name] = f"{NOT_RUN}, it builds on {', '.join(failed)}"


def run_all(jobs: Sequence[Job], at_once: int, gpus: Sequence[str] = (), on_failure: str = "stop") -> dict[str, str]:
    """Run all jobs that are not done, each after those it builds on. Returns the reasons of failures by job name.

    Args:
        at_once: number of jobs side by side. They share the cores; OMP_NUM_THREADS, where set, is the threads of each.
        gpus: if any, each job gets one of these to itself, and as many jobs run side by side.
        on_failure: "stop" ends the other jobs, which can resume later; "continue" runs every job that still can.
    """
    share = max(processors() // (len(gpus) or at_once), 1)
    threads = os.environ.get("OMP_NUM_THREADS", str(share))
    slots = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus] or [{"OMP_NUM_THREADS": threads}] * at_once
    columns = (TextColumn("{task.description:36}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        runner = JobRunner(jobs, slots, progress)
        try:
            while (runner.waiting or runner.running) and not (runner.failed and on_failure == "stop"):
                runner.start_ready()
                time.sleep(0.2)
                runner.collect_finished()
                runner.drop_blocked()
        except Interrupted as interrupted:
            interrupted.kept = "the same command resumes the jobs that are not done"
            raise
        finally:
            end([running.process for running in runner.running])
    return runner.failed


def end(processes: Sequence[subprocess.Popen]) -> None:
    """End processes so that they can resume: a training saves its current step. Kill those that hang."""
    try:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + SECONDS_TO_END
        for process in processes:
            process.wait(max(deadline - time.monotonic(), 0))
    except (subprocess.TimeoutExpired, Interrupted):  # hangs, or a second signal
        for process in processes:
            process.kill()


def finished_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs that are done together with all jobs they build on."""
    done = {job.name: job for job in jobs if job.done}
    while outdated := [name for name, job in done.items() if not done.keys() >= set(job.after)]:
        for name in outdated:
            del done[name]
    return list(done.values())


def not_done(jobs: Sequence[Job], console: Console) -> list[Job]:
    """Report the finished jobs; mark the others as unfinished and return them."""
    finished = finished_jobs(jobs)
    for job in finished:
        console.print(f"{job.name}: done already, {job.folder} (remove it to run it again)", highlight=False)
    unfinished = [job for job in jobs if job not in finished]
    for job in unfinished:
        begin(job.folder)  # old results may come from another command or from an outdated job
    return unfinished


def failure_reason(job: Job, status: int) -> str:
    """Return the last error in the log of a failed job, else its last line (not of srun), else its exit status."""
    if status == 0:
        return f"exit status 0, but results in {job.folder} are incomplete: scores are missing or damaged"
    text = job.log.read_text(errors="replace") if job.log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("srun: ")]
    errors = [line for line in lines if line.startswith("error: ")]  # a progress bar may end after it
    return (errors or lines or [f"exit status {status}"])[-1]
