"""Command-line overrides: their names, values as Hydra reads them, and `~` in paths."""

import json
import os
import re
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString

# `~` or `~user` at the beginning of a value, or of one in a list or a sweep: shells leave `data.root=~/coco` as it is.
HOME = re.compile(r"(?<=[=,\[(:'\"])~[\w.-]*(?=[/,\])'\"]|$)")


def name_of(override: str) -> str:
    """The setting that an override sets, adds (`+`) or deletes (`~`)."""
    return override.lstrip("+~ ").partition("=")[0]


def parsed(override: str) -> Override:
    """An override as Hydra reads it. Raises HydraException for wrong syntax."""
    return OverridesParser.create().parse_override(override)


def quote(value: str) -> str:
    """A text as Hydra reads it, whatever it contains."""
    return QuotedString(value, Quote.single).with_quotes()


def spell(value: Any) -> str:
    """A value as a user writes it: null, true and false as in YAML."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def written(value: Any) -> str:
    """Any value of a configuration, also a list or a dictionary, as Hydra reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{written(child)}" for key, child in value.items()) + "}"
    return quote(value) if isinstance(value, str) else spell(value)


def expand_home(argument: str) -> str:
    """An override with `~` and `~user` expanded; one that deletes a setting (`~logger`) stays as it is."""
    return HOME.sub(lambda home: os.path.expanduser(home[0]), argument)


def refuse_home(setting: str, value: str) -> None:
    """Raise ValueError for `~` in a configuration file, where nothing expands it."""
    if value == "~" or value.startswith("~/"):
        raise ValueError(
            f"{setting}={value}: ~ is expanded on the command line only; in a file expected ${{oc.env:HOME}}{value[1:]}"
        )
