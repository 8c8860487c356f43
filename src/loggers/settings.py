"""Nested settings as loggers show them, one by one."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from src.mistakes import EXTRAS


def require(package: str) -> None:
    """Refuse a logger whose package is not there. Raises ValueError."""
    if find_spec(package) is None:
        raise ValueError(f"logger={package}: {package} is not installed: pip install '.[{EXTRAS[package]}]'")


def flat(settings: Any, path: str = "") -> dict[str, Any]:
    """Settings by their names as typed (`data.train.num_scenes`); those of `config` without that word."""
    if not isinstance(settings, Mapping):
        return {path: settings if isinstance(settings, bool | int | float | str) else str(settings)}
    found: dict[str, Any] = {}
    for name, value in settings.items():
        below = "" if not path and name == "config" and isinstance(value, Mapping) else f"{path}.{name}".lstrip(".")
        found |= flat(value, below)
    return found
