"""How a command ends before its time: a signal ends it, but not in the middle of what must not be cut in two."""

import atexit
import multiprocessing.util  # registers what ends workers at exit, before ours, which therefore runs first
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; a cluster's pre-emption, `kill`, the stop of a container


class Interrupted(BaseException):
    """A signal ends the command. It is no Exception, so that nothing on the way takes it for an error to handle."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum
        self.kept = ""  # what was saved because of it, in words

    @property
    def status(self) -> int:
        """The exit status that shells know: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum

    def __str__(self) -> str:
        return f"interrupted ({signal.Signals(self.signum).name})"


class Signals:
    """Turns signals into `Interrupted`: at once, or, while they are held, when they are released.

    A second signal does not wait: whoever sends it wants an end now.
    """

    def __init__(self) -> None:
        self.held = False
        self.received: int | None = None
        self.before: dict[int, Any] = {}  # handlers that were there

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle signals in this block; outside of a main thread Python lets nobody do so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        there = {signum: signal.getsignal(signum) for signum in (*ENDING, signal.SIGUSR2)}
        # A shell's background jobs ignore SIGINT, and go on to; USR2 is a cluster's, whose client handles it.
        self.before = {
            signum: handler
            for signum, handler in there.items()
            if handler is not signal.SIG_IGN and (signum in ENDING or callable(handler))
        }
        self.watch()
        try:
            yield
        finally:
            for signum, handler in self.before.items():
                signal.signal(signum, handler)
            self.held, self.received, self.before = False, None, {}

    def watch(self) -> None:
        """Become the handler, again where a library has put its own in between."""
        for signum in self.before:
            signal.signal(signum, self.handle)

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Remember a signal, and raise Interrupted if nothing has to wait for it."""
        first = self.received is None
        self.received = self.received or signum
        if not (first and self.held):
            raise Interrupted(self.received)

    def hold(self) -> None:
        """Let signals wait."""
        self.held = True

    def release(self) -> None:
        """Let signals through again. Raises Interrupted if one has been waiting."""
        self.held = False
        if self.received is not None:
            raise Interrupted(self.received)

    def requeue(self, signum: int) -> None:
        """Have the client of a cluster do what it wanted to do on this signal; of others nothing."""
        handler: Callable[..., Any] | None = self.before.get(signum)
        if signum == signal.SIGUSR2 and handler is not None:
            handler(signum, None)


signals = Signals()  # a process has one set of them


def leave_signals_to_parent(*_: object) -> None:
    """Have a worker process ignore what ends commands: whoever started it ends it, after what must not be cut in two.

    Clusters and terminals signal all processes of a command, and a worker that dies takes the running step with it.
    """
    for signum in ENDING:
        signal.signal(signum, signal.SIG_IGN)


def end_workers() -> None:
    """End the workers that are left when a process ends, by the signal that nobody can ignore; else it would wait."""
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()


atexit.register(end_workers)
