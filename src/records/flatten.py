"""Settings within settings."""

from typing import Any


def flatten(settings: Any, path: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    if not isinstance(settings, dict):
        return {path: settings} if path else {}
    return {
        name: value
        for key, child in settings.items()
        for name, value in flatten(child, f"{path}.{key}".lstrip(".")).items()
    }
