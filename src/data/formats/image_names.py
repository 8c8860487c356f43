"""Names of pictures as annotation files have them, and the files that they stand for.

Letter cases, Unicode forms and slashes depend on the system that wrote a file, and some tools put the image folder into
the name: where a name is no file, one that differs in these alone is taken, if there is exactly one.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePath

from src.data.formats.image_files import missing
from src.data.problems import Kind, Problem, Report

Parts = tuple[str, ...]


class Folder:
    """What is in a folder, however it is spelt."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listings: dict[str, set[str]] = {}  # a listing of each folder is quicker than a look at each file

    def holds(self, name: str) -> bool:
        """Whether a name is that of a file."""
        parent, slash, file = name.rpartition("/")
        parent += slash  # "/" of a name that begins so
        if parent not in self.listings:
            place = self.path / parent
            self.listings[parent] = set(os.listdir(place)) if os.path.isdir(place) else set()
        return file in self.listings[parent]

    @cached_property
    def by_spelling(self) -> dict[Parts, list[str]]:
        """Names of all files below, by what is the same for all spellings."""
        found: dict[Parts, list[str]] = {}
        for parent, _, files in os.walk(self.path, followlinks=True):
            for file in files:
                name = str((Path(parent) / file).relative_to(self.path))
                found.setdefault(spelling(name), []).append(name)
        return found

    def alike(self, name: str, suffix: str | None) -> set[str]:
        """Files whose names differ in spelling, or in the folder before them; and in the ending, if one is given."""
        parts, own = spelling(name), spelling(str(self.path.absolute()))[-1]
        tails = [parts, *(parts[place + 1 :] for place, part in enumerate(parts[:-1]) if part == own)]
        if suffix is not None:
            tails += [(*tail[:-1], str(PurePath(tail[-1]).with_suffix(suffix))) for tail in tails if tail]
        return {file for tail in tails for file in self.by_spelling.get(tail, [])}

    def elsewhere(self, name: str) -> Path | None:
        """The folder, below or above, from where a name would be a file; None if there is none, or more than one."""
        parts = spelling(name)
        below = {Path(one).parent for tail, names in self.by_spelling.items() if tail[-1:] == parts for one in names}
        if len(below) == 1:
            return self.path / below.pop()
        return self.path.parent if os.path.isfile(self.path.parent / name) else None  # false also of names too long


def spelling(name: str) -> Parts:
    """What a name has in common with others of the same file."""
    plain = unicodedata.normalize("NFC", name.replace("\\", "/")).casefold()
    return tuple(part for part in plain.split("/") if part not in ("", "."))


def locate(path: Path, names: Sequence[str], setting: str, report: Report, suffix: str | None = None) -> list[str]:
    """The files in a folder that names stand for; an empty name stands for none.

    What is not there, and what is read as another name, goes to `report`; where that returns, such names stay.

    Args:
        setting: what to change where pictures lie elsewhere.
        suffix: an ending that a file may have in place of the name's.
    """
    folder = Folder(path)
    absent = {name for name in names if name and not folder.holds(name)}
    fits = {name: folder.alike(name, suffix) for name in sorted(absent)}
    files = {name: files.pop() for name, files in fits.items() if len(files) == 1}
    taken = Counter([*files.values(), *(set(names) - absent)])
    files = {name: file for name, file in files.items() if taken[file] == 1}
    report(told(path, files))
    report(lost(folder, sorted(absent - files.keys()), setting))
    return [files.get(name, name) for name in names]


def told(path: Path, files: dict[str, str]) -> Iterator[Problem]:
    """Names that are read as others, said once."""
    if files:
        name, file = next(iter(files.items()))
        more = f", and so are {len(files) - 1} more" * (len(files) > 1)
        yield Problem(Kind.READ_AS, str(path), "", f"has no {name!r}; read as {file!r}{more}", "the names of files")


def lost(folder: Folder, names: Sequence[str], setting: str) -> Iterator[Problem]:
    """Names that no file has, and where the first of them would be one."""
    for place, name in enumerate(names):
        problem = missing(folder.path / name)
        other = folder.elsewhere(name) if not place else None
        if other is not None:
            problem = problem._replace(expected=f"the file that is named; it is there with {setting}={other}")
        yield problem
