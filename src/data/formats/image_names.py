"""The image files that the names in annotation files stand for.

Letter case, Unicode form and slashes depend on the system that wrote a file, and some tools put the image folder into
the name. If no file has a name, the one file whose name differs in these ways alone is taken instead.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePath

from src.data.formats.images import missing
from src.data.problems import Kind, Problem, Report

Parts = tuple[str, ...]


class Folder:
    """The files in a folder, by name and by spelling."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listings: dict[str, set[str]] = {}  # listing each folder once is faster than looking for each file

    def holds(self, name: str) -> bool:
        """Whether a file has this name."""
        parent, slash, file = name.rpartition("/")
        parent += slash  # "/" of an absolute name
        if parent not in self.listings:
            place = self.path / parent
            self.listings[parent] = set(os.listdir(place)) if os.path.isdir(place) else set()
        return file in self.listings[parent]

    @cached_property
    def by_spelling(self) -> dict[Parts, list[str]]:
        """Names of all files below the folder, by their `spelling`."""
        by_spelling: dict[Parts, list[str]] = {}
        for name in names_below(self.path):
            by_spelling.setdefault(spelling(name), []).append(name)
        return by_spelling

    def similar(self, name: str, suffix: str | None) -> set[str]:
        """Files whose names differ in spelling, in the folder before them, or in the suffix, if one is given."""
        parts, own = spelling(name), spelling(str(self.path.absolute()))[-1]
        tails = [parts, *(parts[place + 1 :] for place, part in enumerate(parts[:-1]) if part == own)]
        if suffix is not None:
            tails += [(*tail[:-1], str(PurePath(tail[-1]).with_suffix(suffix))) for tail in tails if tail]
        return {file for tail in tails for file in self.by_spelling.get(tail, [])}

    def elsewhere(self, name: str) -> Path | None:
        """The one folder below, or else the folder above, that holds a file of this name; None if there is none."""
        parts = spelling(name)
        same = (names for file_parts, names in self.by_spelling.items() if file_parts[-1:] == parts)
        below = {Path(name).parent for names in same for name in names}
        if len(below) == 1:
            return self.path / below.pop()
        return self.path.parent if os.path.isfile(self.path.parent / name) else None  # False also for too long names


def names_below(folder: Path) -> Iterator[str]:
    """Names of all files below a folder, relative to it."""
    for parent, _, names in os.walk(folder, followlinks=True):
        yield from (str((Path(parent) / name).relative_to(folder)) for name in names)


def spelling(name: str) -> Parts:
    """The parts of a path, equal for all ways to write it."""
    plain = unicodedata.normalize("NFC", name.replace("\\", "/")).casefold()
    return tuple(part for part in plain.split("/") if part not in ("", "."))


def locate(path: Path, names: Sequence[str], setting: str, report: Report, suffix: str | None = None) -> list[str]:
    """The files in a folder that names stand for; an empty name stands for no file.

    Missing files, and names that are read as others, go to `report`; if it returns, missing names are returned as they
    are.

    Args:
        setting: of the folder, to change if the files lie elsewhere.
        suffix: a suffix that a file may have instead of the name's.
    """
    folder = Folder(path)
    absent = {name for name in names if name and not folder.holds(name)}
    similar = {name: folder.similar(name, suffix) for name in sorted(absent)}
    file_of = {name: files.pop() for name, files in similar.items() if len(files) == 1}
    uses = Counter([*file_of.values(), *(set(names) - absent)])
    file_of = {name: file for name, file in file_of.items() if uses[file] == 1}
    if file_of:
        name, file = next(iter(file_of.items()))
        more = f", and so are {len(file_of) - 1} more" if len(file_of) > 1 else ""
        found = f"has no {name!r}; read as {file!r}{more}"
        report([Problem(Kind.READ_AS, str(path), "", found, "the names of files")])
    lost = sorted(absent - file_of.keys())
    problems = [missing(path / name) for name in lost]
    if lost and (place := folder.elsewhere(lost[0])) is not None:
        expected = f"a file of that name; it is found with data.train.{setting} or data.val.{setting}={place}"
        problems[0] = problems[0]._replace(expected=expected)
    report(problems)
    return [file_of.get(name, name) for name in names]
