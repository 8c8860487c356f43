"""Commands of this project run side by side, each a process of its own; what is finished is not run again."""

import csv
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from src.weights.files import load

DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG
NOT_RUN = "not run"


class Job(NamedTuple):
    """One command.

    `folder` keeps its log and whether it is done; `after` names the jobs it builds on; `steps` is how many a training
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
    def done(self) -> bool:
        """Whether this very command has come to its end."""
        return (self.folder / "done").is_file() and (self.folder / "done").read_text() == self.line

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def start(self, environment: dict[str, str]) -> subprocess.Popen:
        """Run it; a training that was broken off goes on from its last checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        begun, last = self.folder / "begun", self.folder / "checkpoints/last.ckpt"
        goes_on = begun.is_file() and begun.read_text() == self.line and readable(last)
        begun.write_text(self.line)
        command = [sys.executable, "-m", *self.arguments, *([f"ckpt_path={last}"] if goes_on else [])]
        with open(self.log, "a" if goes_on else "w") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **environment}, preexec_fn=die_with_parent
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


def readable(checkpoint: Path) -> bool:
    """Whether a checkpoint is there and whole."""
    if not checkpoint.is_file():
        return False
    try:
        load(checkpoint, "ckpt_path", mmap=True)
    except ValueError:
        return False
    return True


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends, even by kill -9 (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def run_all(jobs: Sequence[Job], at_once: int, gpus: Sequence[str] = (), on_failure: str = "stop") -> dict[str, str]:
    """Run what is not done, in an order that respects `after`; returns why jobs failed, by name.

    Args:
        at_once: how many run side by side.
        gpus: each job has one of these to itself; then as many run at once.
        on_failure: stop: the others are stopped too, and can go on later; continue: those that can still run do.
    """
    threads = str(max((os.cpu_count() or 1) // (len(gpus) or at_once), 1))
    slots = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus] or [{"OMP_NUM_THREADS": threads} for _ in range(at_once)]
    console = Console(stderr=True)
    finished = finished_of(jobs)
    for job in finished:
        console.print(f"{job.name}: done already, {job.folder} (remove it to run it again)", highlight=False)
    waiting, done = [job for job in jobs if job not in finished], {job.name for job in finished}
    for job in waiting:
        (job.folder / "done").unlink(missing_ok=True)  # of another command, or made from what runs anew
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
                    if process.returncode:
                        failed[job.name] = last_words(job.log, process.returncode)
                    else:
                        (job.folder / "done").write_text(job.line)
                        done.add(job.name)
                    del running[job.name]
                    slots.append(slot)
                    progress.remove_task(bar)
                    progress.advance(whole)
                lost = [job for job in waiting if failed.keys() & set(job.after)]
                for job in lost:
                    waiting.remove(job)
                    failed[job.name] = f"{NOT_RUN}, it builds on {', '.join(failed.keys() & set(job.after))}"
    finally:
        for _, process, *_ in running.values():
            process.kill()
    return failed


def finished_of(jobs: Sequence[Job]) -> list[Job]:
    """Jobs that have come to their end, and all they build on too."""
    finished, before = [job for job in jobs if job.done], -1
    while len(finished) != before:
        before, names = len(finished), {job.name for job in finished}
        finished = [job for job in finished if names.issuperset(job.after)]
    return finished


def last_words(log: Path, status: int) -> str:
    """Why a job failed: its last line that says something."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit status {status}"
