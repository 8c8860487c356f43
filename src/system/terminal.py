"""Lines for the user on the terminal: printed once for all processes, jobs or calls."""

import sys
from functools import cache
from typing import NoReturn


def say(line: str) -> None:
    """Print a line from the first process of a run."""
    from lightning.pytorch.utilities import rank_zero_only  # not above: `src.weights` prints lines without Lightning

    if not rank_zero_only.rank:  # type: ignore[attr-defined]
        print(line, file=sys.stderr)


@cache
def say_once(line: str) -> None:
    """Print a line that several jobs or calls would print, with `?` for unprintable characters of file names."""
    print("".join(letter if letter.isprintable() else "?" for letter in line), file=sys.stderr)


def fail(message: str, status: int = 2) -> NoReturn:
    """Print what is wrong in one line, and exit."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
