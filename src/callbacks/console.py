"""The console that callbacks print tables on."""

from rich.console import Console


def open_console() -> Console:
    """Return a console as wide as the terminal, or of 120 columns without one."""
    return Console(width=120) if not Console().is_terminal else Console()
