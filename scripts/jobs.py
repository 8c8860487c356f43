"""Commands of this project run side by side, one thread each; what is finished is not run again."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

SHOWN = 2000  # characters of the log of a job that failed


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

    def start(self) -> subprocess.Popen:
        """Run it; a training that was broken off goes on from its last checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        begun, last = self.folder / "begun", self.folder / "checkpoints/last.ckpt"
        goes_on = self.steps and last.is_file() and begun.is_file() and begun.read_text() == self.line
        begun.write_text(self.line)
        command = [sys.executable, "-m", *self.arguments, *([f"ckpt_path={last}"] if goes_on else [])]
        with open(self.folder / "log.txt", "a" if goes_on else "w") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def steps_done(self) -> int:
        """The newest step that a training has logged."""
        metrics = self.folder / "metrics.csv"
        if not metrics.is_file():
            return 0
        with open(metrics) as file:
            return max((int(row["step"]) for row in csv.DictReader(file) if row["step"]), default=0)


def run_all(jobs: Sequence[Job], at_once: int) -> None:
    """Run what is not done, in an order that respects `after`; if one fails, say why and stop."""
    waiting = [job for job in jobs if not job.done]
    console = Console(stderr=True)
    for job in jobs:
        if job.done:
            console.print(f"{job.name}: done already, {job.folder} (remove it to run it again)", highlight=False)
    done = {job.name for job in jobs if job.done}
    running: dict[str, tuple[Job, subprocess.Popen, TaskID]] = {}
    columns = (TextColumn("{task.description:36}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    try:
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            whole = progress.add_task(f"{len(jobs)} jobs", total=len(jobs), completed=len(done))
            while waiting or running:
                ready = [job for job in waiting if done.issuperset(job.after)][: at_once - len(running)]
                for job in ready:
                    waiting.remove(job)
                    running[job.name] = job, job.start(), progress.add_task(job.name, total=job.steps)
                time.sleep(0.5)
                for job, process, bar in list(running.values()):
                    if job.steps:
                        progress.update(bar, completed=job.steps_done())
                    if process.poll() is None:
                        continue
                    if process.returncode:
                        log = job.folder / "log.txt"
                        sys.exit(f"error: {job.name} failed, see {log}:\n{log.read_text()[-SHOWN:]}")
                    (job.folder / "done").write_text(job.line)
                    done.add(job.name)
                    del running[job.name]
                    progress.remove_task(bar)
                    progress.advance(whole)
    finally:
        for _, process, _ in running.values():
            process.kill()
