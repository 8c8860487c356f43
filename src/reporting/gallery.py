"""Pictures of runs, small enough to be part of a page: images that leave early and late, and what runs predict."""

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from src.reporting.run_settings import identity
from src.reporting.runs import Run

EARLY = 3  # images that leave first, and as many that leave last
EXAMPLES = 2  # pictures of a run without a gate
MOST = 30  # pictures of a page
WIDTH, QUALITY = 960, 80  # pixels, and of JPEG


class Picture(NamedTuple):
    """Something to look at, and what it is."""

    caption: str
    file: Path


class Strip(NamedTuple):
    """Pictures of one run."""

    title: str
    pictures: list[Picture]


def embed(file: Path) -> str | None:
    """A picture as a data URI, at most `WIDTH` wide; None if it cannot be read."""
    try:
        with Image.open(file) as image:
            picture = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    picture.thumbnail((WIDTH, WIDTH))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def strips(runs: Sequence[Run]) -> list[Strip]:
    """Leavers of every run that lists exits, then examples of the others, of one seed; none is empty."""
    gated = [Strip(f"Left first and last: {run.folder}", leavers(run)) for run in runs]
    once = {identity(run.settings.but()): run for run in reversed(runs) if not (run.folder / "exits.csv").is_file()}
    others = [Strip(str(run.folder), examples(run)) for run in reversed(once.values())]
    return [strip for strip in gated + others if strip.pictures]


def leavers(run: Run) -> list[Picture]:
    """The images that left first and last, of those that were drawn, which are such, with the answer of every exit."""
    exits, drawn = exits_of(run.folder), by_name(run.folder)
    names = sorted(drawn.keys() & exits.keys(), key=lambda name: exits[name])
    late = names[EARLY:][-EARLY:]
    pictures = []
    for name in names[:EARLY] + late:
        depth, gflops = exits[name]
        when = "late" if name in late else "early"
        pictures.append(Picture(f"leaves {when}, at exit {depth} ({gflops:.4g} GFLOPs): {name}", drawn[name]))
    return pictures


def examples(run: Run) -> list[Picture]:
    """The first pictures of a run."""
    return [Picture(name, file) for name, file in list(by_name(run.folder).items())[:EXAMPLES]]


def by_name(folder: Path) -> dict[str, Path]:
    """Pictures of a run by their image's name, in order; the number before it is their place."""
    return {file.stem.partition("_")[2]: file for file in sorted((folder / "pictures").glob("*_*.png"))}


def exits_of(folder: Path) -> dict[str, tuple[int, float]]:
    """Exit and GFLOPs of each image by its name in pictures; empty without a list, or with a damaged one."""
    try:
        with open(folder / "exits.csv", newline="") as file:
            return {
                Path(row["name"]).stem.replace(" ", "_"): (int(row["exit"]), float(row["gflops"]))
                for row in csv.DictReader(file)
            }
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return {}
