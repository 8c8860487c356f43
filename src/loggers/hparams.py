"""Nested settings as loggers show them, one by one."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from src.config.errors import EXTRAS
from src.records.flatten import flatten


def require(package: str) -> None:
    """Refuse a logger whose package is not there. Raises ValueError."""
    if find_spec(package) is None:
        raise ValueError(f"logger={package}: {package} is not installed: pip install '.[{EXTRAS[package]}]'")


def shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their names as typed (`data.train.num_scenes`); those of `config` without that word."""
    config = settings.get("config")
    others = {name: value for name, value in settings.items() if name != "config"}
    named = flatten({**others, **config} if isinstance(config, Mapping) else dict(settings))
    return {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in named.items()}
