"""Two configurations compared, setting by setting."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from src.config.schema import spell
from src.records.flatten import flatten

SHOWN = 4  # differences that a line names


class Difference(NamedTuple):
    """A setting that is another one now; `missing` where one side has none."""

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} was {spelled(self.before)} and is {spelled(self.now)} now"


class Missing:
    """What a setting is where there is none."""

    def __str__(self) -> str:
        return "not there"


missing = Missing()


def differences(before: Any, now: Any, left: Sequence[str] = ()) -> list[Difference]:
    """Settings that differ, but for those below some names."""
    old, new = flatten(before), flatten(now)
    added = [name for name in new if name not in old and not any(below(name, [o]) or below(o, [name]) for o in old)]
    names = [name for name in [*old, *added] if not below(name, left)]  # what replaces another is not told twice
    return [
        Difference(name, old.get(name, missing), new.get(name, missing))
        for name in names
        if old.get(name, missing) != new.get(name, missing)
    ]


def below(name: str, places: Sequence[str]) -> bool:
    """Whether a dotted name is one of some places, or stands below one."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def spelled(value: Any) -> str:
    return str(value) if isinstance(value, Missing) else spell(value)


def listed(changes: Sequence[Difference]) -> str:
    """Some differences in words, and how many more there are."""
    more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return ", ".join(map(str, changes[:SHOWN])) + more
