"""Times the parts of a call, and lets several calls take turns."""

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track

Seconds = dict[str, list[float]]  # of each part, in every round
Clock = Callable[[], float]  # seconds
Way = TypeVar("Way")  # the name of a way to predict
Image = TypeVar("Image")
WARM_UP = {"cpu": 1, "cuda": 3}  # rounds that are not kept


class Stopwatch:
    """Splits the time of a call over its parts; a part inside another one is not counted twice.

    Reading the clock must not change what is timed: on a GPU the moments are events that the device records as it
    reaches them, so that nothing waits between the parts.

    Args:
        mark: the current moment. between: the seconds from one moment to another.
    """

    def __init__(self, mark: Callable[[], Any], between: Callable[[Any, Any], float]):
        self.mark, self.between = mark, between
        self.running: list[str] = []  # parts that have begun, each inside the one before it
        self.moments: list[tuple[Any, str | None]] = []  # when the running part changed, and to which

    @classmethod
    def of(cls, device: torch.device) -> "Stopwatch":
        """Return a stopwatch for calls that compute on a device."""
        if device.type != "cuda":
            return cls(time.perf_counter, lambda start, end: end - start)

        def mark() -> torch.cuda.Event:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            return event

        return cls(mark, lambda start, end: start.elapsed_time(end) / 1000)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time inside the block, and outside of parts that begin in it, as that of a part."""
        self.running.append(name)
        self.moments.append((self.mark(), name))
        try:
            yield
        finally:
            self.running.pop()
            self.moments.append((self.mark(), self.running[-1] if self.running else None))

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Count every call of a method inside a running part as a part of its own."""
        call = getattr(owner, method)

        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if not self.running:
                return call(*args, **kwargs)
            with self.part(name):
                return call(*args, **kwargs)

        setattr(owner, method, timed)

    def read(self) -> dict[str, float]:
        """Return the seconds of each part since the last reading."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        seconds: dict[str, float] = defaultdict(float)
        for (start, name), (end, _) in zip(self.moments, self.moments[1:], strict=False):
            if name is not None:
                seconds[name] += self.between(start, end)
        self.moments.clear()
        return dict(seconds)


def take_turns(
    calls: Mapping[Way, Callable[[], None]], stopwatch: Stopwatch, rounds: int, warm_up: int, title: str
) -> dict[Way, Seconds]:
    """Return the seconds of each call by part, one number for each round.

    In a round every call has one turn, in an order that changes: load of other programs affects all alike, and numbers
    of one round can be compared.
    """
    seconds: dict[Way, Seconds] = {name: {} for name in calls}
    chance = random.Random(0)
    turns = [
        (place, name) for place in range(-warm_up, rounds) for name in chance.sample(list(calls), len(calls))
    ]  # negative places warm up
    for place, name in track(turns, title, console=Console(stderr=True), transient=True):
        stopwatch.read()
        calls[name]()
        for part, taken in stopwatch.read().items():
            if place >= 0:
                seconds[name].setdefault(part, []).append(taken)
    return seconds


def latencies(
    ways: Mapping[Way, Callable[[Image], Any]],
    images: Iterable[Image],
    rounds: int,
    context: Callable[[], AbstractContextManager[Any]],
    clock: Clock,
) -> dict[Way, float]:
    """Return seconds by way: the median over rounds of the mean over images, without the round to warm up."""
    taken: dict[Way, list[list[float]]] = {name: [[] for _ in range(rounds + 1)] for name in ways}
    for image in images:
        for place in range(rounds + 1):
            for name, way in ways.items():
                with context():
                    started = clock()
                    way(image)
                    taken[name][place].append(clock() - started)
    return {name: statistics.median(map(statistics.mean, times[1:])) for name, times in taken.items()}


def clock_of(device: torch.device) -> Clock:
    """Return a clock that waits for the device and then returns seconds."""

    def clock() -> float:
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter()

    return clock
