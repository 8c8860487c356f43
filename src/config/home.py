"""Paths below a home folder, `~/coco`, as a command line gives them: shells leave `data.root=~/coco` as it is."""

import os
import re

BEGINNING = re.compile(r"(?<=[=,\[(:'\"])~[\w.-]*(?=[/,\])'\"]|$)")  # of a value, or of one in a list or a sweep


def expand_home(argument: str) -> str:
    """An override with `~` and `~user` written out; one that deletes (`~logger`) stays as it is."""
    return BEGINNING.sub(lambda home: os.path.expanduser(home[0]), argument)


def refuse_home(setting: str, value: str) -> None:
    """Refuse such a path in a file, where nothing writes it out. Raises ValueError naming what does."""
    if value == "~" or value.startswith("~/"):
        raise ValueError(
            f"{setting}={value}: ~ is written out on the command line only; in a file expected "
            f"${{oc.env:HOME}}{value[1:]}"
        )
