"""Signals end a command, but not in the middle of a step that must not be cut in two."""

import atexit
import multiprocessing.util  # imported first: exit handlers run in reverse order, ours before that of workers
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; a cluster's pre-emption, `kill`, the stop of a container


class Interrupted(BaseException):
    """A signal ends the command. Not an Exception, so that nothing on the way handles it as an error."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum
        self.kept = ""  # what was saved, in words

    @property
    def status(self) -> int:
        """The exit status by the shell's convention: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum

    def __str__(self) -> str:
        return f"interrupted ({signal.Signals(self.signum).name})"


class Signals:
    """Turns signals into `Interrupted`: at once, or, while they are held, when they are released.

    A second signal does not wait.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Hold no signals, and forget those that came."""
        self.held = False
        self.received: int | None = None
        self.before: dict[int, Any] = {}  # handlers that were there

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle signals in this block, if it runs in the main thread; Python allows it nowhere else."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.reset()  # a training outside such a block, as in a notebook, may have failed while it held them
        for number in (*ENDING, signal.SIGUSR2):
            handler = signal.getsignal(number)
            # background jobs of a shell keep ignoring SIGINT; SIGUSR2 only concerns a cluster's client that handles it
            if handler is not signal.SIG_IGN and (number in ENDING or callable(handler)):
                self.before[number] = handler
        self.watch()
        try:
            yield
        finally:
            for signum, handler in self.before.items():
                signal.signal(signum, handler)
            self.reset()

    def watch(self) -> None:
        """Become the handler, again if a library has set its own since."""
        for signum in self.before:
            signal.signal(signum, self.handle)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Remember a signal; raise Interrupted unless signals are held and this is the first."""
        first = self.received is None
        self.received = self.received or signum
        if not (first and self.held):
            raise Interrupted(self.received)

    def hold(self) -> None:
        """Let the first signal wait."""
        self.held = True

    def release(self) -> None:
        """Let signals through again. Raises Interrupted if one has been waiting."""
        self.held = False
        if self.received is not None:
            raise Interrupted(self.received)

    def requeue(self, signum: int) -> None:
        """Let a cluster's client do on its signal (SIGUSR2) what it would have done."""
        if signum == signal.SIGUSR2 and signum in self.before:
            self.before[signum](signum, None)


signals = Signals()  # of this process


def leave_signals_to_parent(*_: object) -> None:
    """Let a worker process ignore signals that end commands; the process that started it will end it.

    Clusters and terminals signal all processes of a command, and a worker that dies breaks the running step.
    """
    for signum in ENDING:
        signal.signal(signum, signal.SIG_IGN)


def end_workers() -> None:
    """Kill the workers that are left when a process ends; they ignore weaker signals, and it would wait for them."""
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()


atexit.register(end_workers)
