"""What can be wrong with a data set: one record for each fault, whether a reader refuses it or validation lists it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

SHOWN = 5  # names that a message lists


class Kind(StrEnum):
    """The faults, in the order of a report."""

    MISSING = "missing file"
    UNREADABLE = "unreadable file"
    REFUSED = "refused on reading"
    SIZE = "sizes disagree"
    MASK_ONLY = "id in the mask only"
    JSON_ONLY = "id in the JSON only"
    CATEGORY = "unknown category"
    CATEGORIES = "categories of train and val differ"
    REPEATED = "repeated id"
    UNLISTED = "annotation of an unlisted image"
    VALUE = "value that cannot be"
    OUTLINE = "unreadable mask"
    EMPTY = "empty mask"
    OUTSIDE = "polygon outside the image"
    OVER_EDGE = "polygon over the edge of the image"
    SPECK = "mask smaller than a pixel"
    OVERLAP = "overlapping masks"
    READ_AS = "read differently than written"
    UNSEEN = "class that is never seen"
    IGNORED = "pixels that are ignored"
    UNSCORED = "nothing to score"
    BARE = "image without objects"


COMMON = frozenset({Kind.OVER_EDGE, Kind.SPECK, Kind.OVERLAP, Kind.BARE})  # COCO itself has them
WARNINGS = COMMON | {Kind.READ_AS, Kind.UNSEEN, Kind.IGNORED, Kind.UNSCORED}  # neither break nor falsify training


OF_NO_IMAGE = frozenset({Kind.REPEATED, Kind.UNLISTED})  # which image they falsify, nothing tells


class Problem(NamedTuple):
    """One fault: `file: id found, expected ...` is its sentence."""

    kind: Kind
    file: str
    id: str  # of the image, annotation or segment, with the word; empty: the file itself
    found: str
    expected: str

    @property
    def breaks(self) -> bool:
        """Whether a model should not be trained or scored with it."""
        return self.kind not in WARNINGS

    @property
    def common(self) -> bool:
        """Whether it is a warning that sound data have, too."""
        return self.kind in COMMON

    def __str__(self) -> str:
        return f"{self.file}: {f'{self.id} ' * bool(self.id)}{self.found}, expected {self.expected}"


Report = Callable[[Iterable[Problem]], None]  # what becomes of problems: `refuse` them, or keep them


class DataError(ValueError):
    """Data that cannot be used, and the problems that it has."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


class MissingDataError(DataError, FileNotFoundError):
    """Files that are named and not there."""


def some(names: Sequence[object]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(map(str, names[:SHOWN])) + f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)


def refuse(problems: Iterable[Problem]) -> None:
    """Raise a DataError, MissingDataError for files that are not there, if one of the problems breaks training."""
    broken = [problem for problem in problems if problem.breaks]
    if not broken:
        return
    more = f" (and {len(broken) - 1} more: python -m src.validate_data lists all)" if broken[1:] else ""
    error = MissingDataError if broken[0].kind is Kind.MISSING else DataError
    raise error(f"{broken[0]}{more}", broken)


def repeats(file: Path, what: str, ids: Iterable[object]) -> Iterator[Problem]:
    """Ids that are there more than once."""
    for id_, count in Counter(ids).items():
        if count > 1:
            yield Problem(Kind.REPEATED, str(file), f"{what} {id_}", f"is there {count} times", "ids that differ")


def other_categories(train: Sequence[Any], val: Sequence[Any]) -> Iterator[Problem]:
    """Classes that training and validation, which must share them, have differently; colours are no matter."""
    for place, (ours, theirs) in enumerate(zip_longest(train, val)):
        if ours is None or theirs is None or ours._replace(color=theirs.color) != theirs:
            said = (f"in training is {ours or 'not there'}", f"as in validation {theirs or 'none'}")
            yield Problem(Kind.CATEGORIES, "data", f"category {place}", *said)
