"""Two configurations compared, setting by setting."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from src.config.overrides import spell
from src.records.flatten import flatten

SHOWN = 4  # differences that a message names


class Missing:
    """The value of a setting that a configuration does not have."""

    def __str__(self) -> str:
        return "not there"


MISSING = Missing()


class Difference(NamedTuple):
    """A setting whose value has changed; `MISSING` where one side has none."""

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} was {spell(self.before)} and is {spell(self.now)} now"


def differences(before: Any, now: Any, ignored: Sequence[str] = ()) -> list[Difference]:
    """The settings that differ, except those at or below the ignored names."""
    old, new = flatten(before), flatten(now)
    # a group that replaces a value, or is replaced by one, is listed once
    added = [name for name in new if name not in old and not any(below(name, [o]) or below(o, [name]) for o in old)]
    pairs = [Difference(name, old.get(name, MISSING), new.get(name, MISSING)) for name in [*old, *added]]
    return [pair for pair in pairs if pair.before != pair.now and not below(pair.name, ignored)]


def below(name: str, places: Sequence[str]) -> bool:
    """Whether a dotted name is one of some places, or stands below one."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def listed(changes: Sequence[Difference]) -> str:
    """Some differences in words, and how many more there are."""
    more = f" and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return ", ".join(map(str, changes[:SHOWN])) + more
