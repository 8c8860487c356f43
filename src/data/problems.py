"""Problems of a data set, as readers refuse them and validation lists them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, NoReturn

from src.data.targets import Category

SHOWN = 5  # names that a message lists


class Kind(StrEnum):
    """The kinds of problems, in the order of a report."""

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
    VALUE = "invalid value"
    OUTLINE = "unreadable mask"
    EMPTY = "empty mask"
    BOX = "unreadable box"
    OUTSIDE = "outline outside the image"
    OVER_EDGE = "outline over the edge of the image"
    SPECK = "mask smaller than a pixel"
    OVERLAP = "overlapping masks"
    READ_AS = "read differently than written"
    UNSEEN = "class that is never seen"
    IGNORED = "pixels that are ignored"
    UNSCORED = "nothing to score"
    BARE = "image without objects"


COMMON = frozenset({Kind.OVER_EDGE, Kind.SPECK, Kind.OVERLAP, Kind.BARE})  # COCO itself has them
WARNINGS = COMMON | {Kind.READ_AS, Kind.UNSEEN, Kind.IGNORED, Kind.UNSCORED}  # neither break nor falsify training
OF_NO_IMAGE = frozenset({Kind.REPEATED, Kind.UNLISTED})  # skipping an image would not remove them


class Problem(NamedTuple):
    """One problem; its text is "FILE: ID FOUND, expected EXPECTED"."""

    kind: Kind
    file: str
    id: str  # "image 3", "annotation 7", "segment 9"; empty: the file itself
    found: str
    expected: str

    @property
    def breaks(self) -> bool:
        """Whether training or scoring with it would fail or be wrong."""
        return self.kind not in WARNINGS

    @property
    def common(self) -> bool:
        """Whether it is a warning that good data sets cause too."""
        return self.kind in COMMON

    def __str__(self) -> str:
        subject = f"{self.file}: {self.id} " if self.id else f"{self.file}: "
        return f"{subject}{self.found}, expected {self.expected}"


Report = Callable[[Iterable[Problem]], None]  # receives problems: `refuse`, or a function that collects them


class DataError(ValueError):
    """Data that cannot be used, with its problems."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


class MissingDataError(DataError, FileNotFoundError):
    """Files that do not exist."""


def refuse(problems: Iterable[Problem]) -> None:
    """Raise a DataError if a problem breaks training; a MissingDataError if the first of these is a missing file."""
    broken = [problem for problem in problems if problem.breaks]
    if not broken:
        return
    more = f" (and {len(broken) - 1} more: python -m src.validate_data lists all)" if len(broken) > 1 else ""
    error = MissingDataError if broken[0].kind is Kind.MISSING else DataError
    raise error(f"{broken[0]}{more}", broken)


def fail(kind: Kind, file: Path | str, found: str, expected: str, id_: str = "") -> NoReturn:
    """Raise the DataError of one problem."""
    raise DataError(str(problem := Problem(kind, str(file), id_, found, expected)), [problem])


def first_few(names: Sequence[object]) -> str:
    """Return the first names, and how many more there are, as text."""
    text = ", ".join(map(str, names[:SHOWN]))
    return f"{text} and {len(names) - SHOWN} more" if len(names) > SHOWN else text


def read_as(file: Path, id_: str, found: str, expected: str, number: int = 1, noun: str = "annotations") -> Problem:
    """Return the one warning that values of `number` entries are read differently than written."""
    if number > 1:
        found += f", and so on in {number} {noun}"
    return Problem(Kind.READ_AS, str(file), id_, found, expected)


def repeated_ids(file: Path, noun: str, ids: Iterable[object]) -> Iterator[Problem]:
    """Report ids that occur more than once."""
    for id_, count in Counter(ids).items():
        if count > 1:
            yield Problem(Kind.REPEATED, str(file), f"{noun} {id_}", f"is listed {count} times", "unique ids")


def differing_categories(train: Sequence[Category], val: Sequence[Category]) -> Iterator[Problem]:
    """Report classes that differ, other than in colour, between training and validation."""
    for place, (ours, theirs) in enumerate(zip_longest(train, val)):
        if ours is None or theirs is None or ours._replace(color=theirs.color) != theirs:
            found, expected = f"is {ours or 'missing'} in training", f"{theirs or 'none'} as in validation"
            yield Problem(Kind.CATEGORIES, "data", f"category {place}", found, expected)
