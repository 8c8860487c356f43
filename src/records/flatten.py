"""Nested settings as one flat dictionary."""

from typing import Any


def flatten(settings: Any, path: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names; an empty dictionary in them has no entry."""
    if not isinstance(settings, dict):
        return {path: settings} if path else {}
    flat: dict[str, Any] = {}
    for key, child in settings.items():
        flat |= flatten(child, f"{path}.{key}".lstrip("."))
    return flat
