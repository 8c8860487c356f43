"""Settings within settings."""

from typing import Any


def flat(settings: Any, path: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    if not isinstance(settings, dict):
        return {path: settings} if path else {}
    return {
        name: value
        for key, child in settings.items()
        for name, value in flat(child, f"{path}.{key}".lstrip(".")).items()
    }
