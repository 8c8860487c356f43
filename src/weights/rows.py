"""One name in two layouts: how it begins, and how it is renamed."""

import re
from functools import cache
from typing import NamedTuple

from torch import Tensor

State = dict[str, Tensor]


class Row(NamedTuple):
    """How one name begins, in our layout and in another; # stands for a number, and the rest is the same in both.

    Several names are equal parts, along the first axis, of one tensor of ours; () means that the layout has none.
    """

    ours: str
    theirs: tuple[str, ...]


def rename(name: str, old: str, new: str) -> str | None:
    """The name with its beginning `old` replaced by `new`, numbers kept; None if it begins otherwise."""
    found = pattern_of(old).fullmatch(name)
    if found is None:
        return None
    *numbers, rest = found.groups()
    for number in numbers:
        new = new.replace("#", number, 1)
    return new + rest


@cache
def pattern_of(beginning: str) -> re.Pattern[str]:
    """A pattern for names with some beginning; its groups are their numbers and the rest."""
    return re.compile(re.escape(beginning).replace(r"\#", r"(\d+)") + "(.*)")
