"""The classes of a data set, as benchmarks, class lists, annotation files and checkpoints list them."""

import colorsys
import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.data.formats.json_file import Entry, entries_of, read_json
from src.data.formats.values import CATEGORIES, HEX_COLOR, ISTHING, normalize
from src.data.problems import Kind, Report, fail, refuse, repeated_ids
from src.data.targets import Category

BENCHMARKS = {file.stem: file for file in sorted((Path(__file__).parents[1] / "classes").glob("*.csv"))}
LARGEST = 65535  # value of a 16-bit PNG
Color = tuple[int, int, int]


def read_categories(source: str | list[Entry]) -> list[Category]:
    """The classes of a benchmark (by name), a CSV file, a JSON file in COCO's layout, or a checkpoint's list, by id.

    A CSV file has the columns `id` (the value in index masks) and `name`, and may have `isthing` (0 or 1, default 0)
    and `color` (#rrggbb). In JSON `isthing` defaults to 1, as in COCO's instances files.

    Raises FileNotFoundError, or ValueError naming the file, the line, the value and what was expected.
    """
    if isinstance(source, list):
        return to_categories(source)
    file = BENCHMARKS.get(source, Path(source))
    if not file.is_file():
        raise FileNotFoundError(
            f"class list not found: {file.absolute()}. Expected {', '.join(BENCHMARKS)}, a CSV file with id and name, "
            "or a JSON file in COCO's layout"
        )
    if file.suffix.lower() != ".json":
        return read_table(file)
    return categories_in(read_json(file), file, refuse, isthing=1)


def categories_in(document: Any, file: Path, report: Report, isthing: int | None = None) -> list[Category]:
    """The classes of a JSON document, by id; `isthing` is the default, None if it is required. Raises DataError."""
    entries = entries_of(document, "categories", file)
    if not entries:
        fail(Kind.VALUE, file, "has no category", "one or more")
    problems = normalize(entries, [*CATEGORIES, ISTHING._replace(default=isthing)], file, "category")
    refuse(problems)  # without classes nothing else can be read
    report(problems)
    report(repeated_ids(file, "category", [entry["id"] for entry in entries]))
    return to_categories([*{entry["id"]: entry for entry in reversed(entries)}.values()])  # the first of each id


def to_categories(entries: list[Entry]) -> list[Category]:
    """Entries as JSON files in COCO's layout and checkpoints have them as categories, by id."""
    categories = []
    for place, entry in enumerate(sorted(entries, key=lambda entry: entry["id"])):
        color = entry.get("color") or default_color(place)
        color = from_hex(color) if isinstance(color, str) else tuple(color)
        categories.append(Category(entry["id"], entry["name"], bool(entry["isthing"]), color))
    return categories


def read_table(file: Path) -> list[Category]:
    """The classes of a CSV file, by id."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:  # with or without Excel's byte order mark
            rows = list(csv.DictReader(stream, skipinitialspace=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable as CSV ({error})") from error
    if not rows or not {"id", "name"} <= rows[0].keys():
        columns = ", ".join(map(str, rows[0])) if rows else "no class"
        raise ValueError(f"{file}: has {columns}; expected a first line `id,name` and a line for each class")
    by_id: dict[int, Category] = {}
    for place, row in enumerate(rows):
        category = read_row(row, place, f"{file}, line {place + 2}")
        first = by_id.setdefault(category.id, category)
        if first is not category:
            raise ValueError(f"{file}: ids must differ, but {first.name} and {category.name} both have {first.id}")
    return [by_id[id_] for id_ in sorted(by_id)]


def read_row(row: Mapping[str, str | None], place: int, where: str) -> Category:
    """The class of one line, at a place from 0; `where` names it in messages."""

    def value(column: str, default: str, pattern: str, expected: str) -> str:
        text = (row.get(column) or default).strip()
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{where}: {column} is {text!r}, expected {expected}")
        return text

    expected_id = f"a whole number from 0 to {LARGEST}"
    id_ = int(value("id", "", r"\d{1,5}", expected_id))
    if id_ > LARGEST:
        raise ValueError(f"{where}: id is {id_}, expected {expected_id}")
    name = value("name", "", r".+", "the name of a class")
    isthing = value("isthing", "0", "[01]", "0 or 1") == "1"
    color = value("color", "#{:02x}{:02x}{:02x}".format(*default_color(place)), HEX_COLOR, "#rrggbb")
    return Category(id_, name, isthing, from_hex(color))


def from_hex(color: str) -> Color:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def default_color(place: int) -> Color:
    """The colour of the class at a place if the file gives none: hues a golden angle apart."""
    red, green, blue = colorsys.hsv_to_rgb(place * 0.618 % 1, (0.55, 0.75, 0.95)[place % 3], 0.9)
    return int(red * 255), int(green * 255), int(blue * 255)
