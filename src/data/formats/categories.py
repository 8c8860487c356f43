"""Which classes there are: as annotation files, class lists, checkpoints and benchmarks list them."""

import colorsys
import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.data.formats.json_file import Entry, read_json
from src.data.formats.values import CATEGORIES, part, put_right
from src.data.problems import Kind, Problem, Report, refuse, repeats
from src.data.targets import Category

BENCHMARKS = {file.stem: file for file in sorted((Path(__file__).parents[1] / "classes").glob("*.csv"))}
LARGEST = 65535  # value of a 16-bit PNG
SHADE = "#[0-9a-fA-F]{6}"


def read_categories(source: str | list[Entry]) -> list[Category]:
    """The classes of a benchmark (by name), a CSV file, a JSON file in COCO's layout, or a checkpoint's list, by id.

    Columns of a CSV file are `id`, which is the value in index masks, and `name`; `isthing` (0 or 1; without it, 0) and
    `color` (#rrggbb) may follow. JSON's entries that do not say are things, as in COCO's instances files.

    Raises FileNotFoundError, or ValueError naming the file, the line, the value and what was expected.
    """
    if isinstance(source, list):
        return listed(source)
    file = BENCHMARKS.get(source, Path(source))
    if not file.is_file():
        raise FileNotFoundError(
            f"class list not found: {file.absolute()}. Expected {', '.join(BENCHMARKS)}, a CSV file with id and name, "
            "or a JSON file in COCO's layout"
        )
    if file.suffix.lower() != ".json":
        return read_table(file)
    return categories_in(read_json(file), file, {"isthing": 1}, refuse)


def categories_in(document: Any, file: Path, default: Entry, report: Report) -> list[Category]:
    """The classes of a document, by id; `default` is what an entry has that does not say. Raises DataError."""
    entries = part(document, "categories", file)
    values = [value._replace(default=default.get(value.key, ...)) for value in CATEGORIES]
    problems = [*put_right(entries, values, file, "category")]
    refuse(problems)  # without them nothing else can be read
    report(problems)
    report(repeats(file, "category", [entry["id"] for entry in entries]))
    by_id = {entry["id"]: entry for entry in reversed(entries)}
    try:
        return listed([*by_id.values()])
    except ValueError as error:
        refuse([Problem(Kind.VALUE, str(file), "", f"cannot be read: {error}", "COCO's categories")])
        raise


def listed(entries: list[Entry]) -> list[Category]:
    """Entries of COCO's JSON files as categories, by id.

    Raises ValueError for a value that cannot be, KeyError or TypeError for what is no such list.
    """
    entries = sorted(entries, key=lambda entry: entry["id"])
    if not entries:
        raise ValueError("no category, expected one or more")
    for entry in entries:
        check(entry)
    colors = [tuple(shades_of(entry) or color(place)) for place, entry in enumerate(entries)]
    return [
        Category(entry["id"], entry["name"], bool(entry["isthing"]), one)
        for entry, one in zip(entries, colors, strict=True)
    ]


def shades_of(entry: Entry) -> Any:
    """Red, green and blue, also where an entry says them as #rrggbb."""
    said = entry.get("color")
    return [*bytes.fromhex(said[1:])] if isinstance(said, str) and re.fullmatch(SHADE, said) else said


def check(entry: Entry) -> None:
    """Raise ValueError for what no category can be."""
    shades = shades_of(entry) or (0, 0, 0)
    shades = shades if isinstance(shades, Sequence) else ()
    for name, fits, expected in (
        ("id", type(entry["id"]) is int, "a whole number"),
        ("name", isinstance(entry["name"], str), "text"),
        ("isthing", entry["isthing"] in (0, 1), "0 or 1"),
        (
            "color",
            len(shades) == 3 and all(shade in range(256) for shade in shades),
            "three numbers from 0 to 255 or #rrggbb",
        ),
    ):
        if not fits:
            raise ValueError(f"category {entry['id']}: {name} is {entry[name]!r}, expected {expected}")


def read_table(file: Path) -> list[Category]:
    """The classes of a CSV file."""
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
        category = read_row(row, place, f"{file}, line {place + 2}")
        if (twin := classes.setdefault(category.id, category)) is not category:
            raise ValueError(f"{file}: ids must differ, but {twin.name} and {category.name} both have {twin.id}")
    return [classes[id_] for id_ in sorted(classes)]


def read_row(row: Mapping[str, str | None], place: int, where: str) -> Category:
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
    shade = value("color", "#{:02x}{:02x}{:02x}".format(*color(place)), SHADE, "#rrggbb")
    red, green, blue = bytes.fromhex(shade[1:])
    return Category(id_, name, isthing, (red, green, blue))


def color(place: int) -> tuple[int, int, int]:
    """A colour for the n-th class where the file gives none: hues a golden angle apart."""
    red, green, blue = colorsys.hsv_to_rgb(place * 0.618 % 1, (0.55, 0.75, 0.95)[place % 3], 0.9)
    return int(red * 255), int(green * 255), int(blue * 255)
