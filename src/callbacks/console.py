"""Where callbacks print."""

from rich.console import Console


def open_console() -> Console:
    """The terminal, or 120 columns where there is none."""
    return Console(width=120) if not Console().is_terminal else Console()
