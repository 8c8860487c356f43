"""Run jobs side by side. Finished ones are not run again."""

import os
import subprocess
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from src.jobs.job import Job, failure_reason
from src.records.run_folder import begin
from src.system.cpus import processors
from src.system.signals import Interrupted

NOT_RUN = "not run"
SECONDS_TO_END = 60  # after SIGTERM; then the job is killed


def visible_gpus() -> list[str]:
    """Return the names of the available GPUs, as in CUDA_VISIBLE_DEVICES."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",") if names else [str(number) for number in range(torch.cuda.device_count())]


def wants_several(devices: Any) -> bool:
    """Whether `trainer.devices` asks for more than one GPU, which is all that a job gets."""
    return bool(visible_gpus()) and devices not in ("auto", 1, "1")


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
