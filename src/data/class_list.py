"""Class lists: CSV files that say which value of a mask is which class."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from src.data.annotations import color
from src.data.files import found
from src.data.targets import Category

OURS = Path(__file__).parent / "classes"
LARGEST = 65535  # value of a 16-bit PNG


def read_classes(source: str) -> list[Category]:
    """The classes of a file, or of the list of a benchmark (ade20k, camvid, cityscapes), by their values.

    Columns are `id`, the value in the masks, and `name`; `isthing` (0 or 1; without it, 0) and `color` (#rrggbb) may
    follow. Raises FileNotFoundError, or ValueError naming the file, the line, the value and what was expected.
    """
    ours = OURS / f"{source}.csv"
    file = ours if ours.is_file() else found(source, "class list")
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:  # with or without the mark that Excel sets
            rows = list(csv.DictReader(stream, skipinitialspace=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable as CSV ({error})") from error
    if not rows or not {"id", "name"} <= rows[0].keys():
        has = ", ".join(map(str, rows[0])) if rows else "no class"
        raise ValueError(f"{file}: has {has}; expected a first line `id,name` and a line for each class")
    classes: dict[int, Category] = {}
    for place, row in enumerate(rows):
        category = read_class(row, place, f"{file}, line {place + 2}")
        if (twin := classes.setdefault(category.id, category)) is not category:
            raise ValueError(f"{file}: ids must differ, but {twin.name} and {category.name} both have {twin.id}")
    return [classes[id_] for id_ in sorted(classes)]


def read_class(row: Mapping[str, str | None], place: int, where: str) -> Category:
    """The class of one line, the n-th from 0; `where` names it."""

    def value(column: str, default: str, pattern: str, expected: str) -> str:
        text = (row.get(column) or default).strip()
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{where}: {column} is {text!r}, expected {expected}")
        return text

    id_ = int(value("id", "", r"\d{1,5}", f"a whole number from 0 to {LARGEST}"))
    if id_ > LARGEST:
        raise ValueError(f"{where}: id is {id_}, expected a whole number from 0 to {LARGEST}")
    name = value("name", "", r".+", "the name of a class")
    isthing = value("isthing", "0", "[01]", "0 or 1") == "1"
    shade = value("color", "#{:02x}{:02x}{:02x}".format(*color(place)), "#[0-9a-fA-F]{6}", "#rrggbb")
    red, green, blue = bytes.fromhex(shade[1:])
    return Category(id_, name, isthing, (red, green, blue))
