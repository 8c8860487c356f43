"""Lines for the user, on the terminal: each once, or once for all processes of a run."""

import sys
from functools import cache
from typing import NoReturn


def say(line: str) -> None:
    """A line of a run, which its first process says for all."""
    from lightning.pytorch.utilities import (
        rank_zero_only,  # here: `src.weights`, which says lines too, needs none of it
    )

    if not rank_zero_only.rank:  # type: ignore[attr-defined]
        print(line, file=sys.stderr)


@cache
def say_once(line: str) -> None:
    """A line that several jobs or calls would say, whatever characters a file put into its names."""
    print("".join(letter if letter.isprintable() else "?" for letter in line), file=sys.stderr)


def fail(message: str, status: int = 2) -> NoReturn:
    """Say what is wrong, in one line, and stop."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
