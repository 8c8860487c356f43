"""The peak memory of one contestant, in a process of its own: the high-water mark of a process never falls."""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from scripts.benchmarking import inference, training
from scripts.benchmarking.models import Theirs, build, depth_of
from scripts.benchmarking.plan import THEIRS, Plan
from src.models.mask2former import Mask2Former
from src.system.stopwatch import Stopwatch

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20


class Memory(NamedTuple):
    """MiB at most: of the whole process on a CPU, of tensors on a GPU."""

    name: str
    idle: float  # before the first pass, the model included
    peak: float

    def cells(self) -> list[str]:
        """Return the cells of a table."""
        return [self.name, *(f"{value:.0f}" for value in (self.idle, self.peak, self.peak - self.idle))]


def measured(part: str, name: str, typed: Sequence[str]) -> Memory:
    """Start this command again to measure one contestant. Raises ValueError if that fails.

    Args:
        typed: the arguments of this command.
    """
    command = [sys.executable, "-m", "scripts.benchmark", *typed, "--peak", part, name]  # a hidden option
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"memory of {name} in {part}: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def measure(plan: Plan, part: str, name: str, size: Sequence[int], side: int) -> Memory:
    """Measure one contestant, the only one of this process."""
    stopwatch = Stopwatch.of(plan.device)
    if part == "training":
        step = training.make_step(plan, name, side, stopwatch, alone=True)
        idle = peak(plan.device)
        training.take_step(plan, stopwatch, step)
    else:
        predict = alone(plan, name)
        images = torch.randn(plan.batch, 3, *Mask2Former.padded(size), device=plan.device)
        idle = peak(plan.device)
        with torch.no_grad(), plan.autocast():
            predict(images)
    return Memory(name, idle, peak(plan.device))


def alone(plan: Plan, name: str) -> Callable[[torch.Tensor], Any]:
    """Return the forward pass of a contestant, and make no other model beside it."""
    depth = depth_of(plan.settings)
    with torch.device("meta" if name == THEIRS else "cpu"):
        task = build([*plan.settings, *inference.overrides_of(name, depth)], plan.classes).eval()
    if name == THEIRS:
        return Theirs(task.model, shared=False).model.eval().to(plan.device)
    task.to(plan.device)
    return task.ways()[name if name.startswith("exit") else f"exit{task.model.exits[-1]}"]


def peak(device: torch.device) -> float:
    """Return the high-water mark in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    status = Path("/proc/self/status")
    # Linux lets a new process inherit `ru_maxrss` of the one that started it; VmHWM is its own
    if status.is_file() and (own := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(own[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / MIB if sys.platform == "darwin" else most / 1024
