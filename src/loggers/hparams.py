"""Nested settings as loggers show them: flat, by their dotted names."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from src.config.errors import EXTRAS
from src.records.flatten import flatten


def require(package: str) -> None:
    """Raise ValueError if the package of a logger is not installed."""
    if find_spec(package) is None:
        raise ValueError(f"logger={package}: {package} is not installed: pip install '.[{EXTRAS[package]}]'")


def shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their dotted names (`data.train.num_scenes`), those below `config` without that prefix."""
    config = settings.get("config")
    others = {name: value for name, value in settings.items() if name != "config"}
    named = flatten({**others, **config} if isinstance(config, Mapping) else dict(settings))
    return {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in named.items()}
