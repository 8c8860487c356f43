"""Which classes there are: as annotation files, checkpoints and benchmarks list them."""

import colorsys
from pathlib import Path

from src.data.documents import Entry, read_json
from src.data.targets import Category

BENCHMARKS = {file.stem: file for file in sorted((Path(__file__).parent / "benchmarks").glob("*.json"))}


def listed(entries: list[Entry], default: Entry | None = None) -> list[Category]:
    """Entries of COCO's JSON files as categories, by id; `default` is what an entry has that does not say."""
    entries = [(default or {}) | entry for entry in sorted(entries, key=lambda entry: entry["id"])]
    colors = [tuple(entry.get("color") or color(place)) for place, entry in enumerate(entries)]
    return [
        Category(entry["id"], entry["name"], bool(entry["isthing"]), one)
        for entry, one in zip(entries, colors, strict=True)
    ]


def read_categories(source: str | list[Entry]) -> list[Category]:
    """The classes that a benchmark has, a JSON file in COCO's layout, or a checkpoint's list.

    Entries that do not say are things, as in COCO's instances files. Raises ValueError or FileNotFoundError for others.
    """
    if isinstance(source, list):
        return listed(source)
    file = BENCHMARKS.get(source, Path(source))
    if not file.is_file():
        raise FileNotFoundError(
            f"categories={source}: no such file; expected {', '.join(BENCHMARKS)}, or a JSON file in COCO's layout"
        )
    try:
        return listed(read_json(file)["categories"], {"isthing": 1})
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"categories={source}: expected COCO's layout, categories with id and name ({error!r})"
        ) from error


def color(place: int) -> tuple[int, int, int]:
    """A colour for the n-th class where the file gives none: hues a golden angle apart."""
    red, green, blue = colorsys.hsv_to_rgb(place * 0.618 % 1, (0.55, 0.75, 0.95)[place % 3], 0.9)
    return int(red * 255), int(green * 255), int(blue * 255)
