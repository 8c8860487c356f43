"""From run folders to the files of a report."""

import sys
from collections.abc import Sequence
from pathlib import Path

from src.reporting import table
from src.reporting.curve import write_png
from src.reporting.page import page, pictures_of
from src.reporting.points import panels, superseded
from src.reporting.runs import Skipped, find
from src.system.atomic import write_text


def report(places: Sequence[Path], out: Path) -> int:
    """The exit status, 2 if there is nothing to report; index.html, curve.png and the tables are in `out` then."""
    runs, skipped = find(places)
    found = panels(runs)
    skipped += [Skipped(run.file, "a newer run has its settings and its seed") for run in superseded(runs, found)]
    pictures, unread = pictures_of(runs)
    skipped += unread
    for one in skipped:
        print(f"skipped: {one.place}: {one.why}", file=sys.stderr)
    if not runs:
        print("error: nothing to report; expected folders with scores.json or gate.json in them", file=sys.stderr)
        return 2
    try:
        write_text(page(runs, found, skipped, pictures), out / "index.html")
        write_png([view for panel in found for view in (panel, *panel.timed().values())], out / "curve.png")
        table.write(runs, found, out / "table.csv")
        table.write_classes(runs, out / "classes.csv")
    except OSError as error:
        print(f"error: --out {out}: {error.strerror or error}", file=sys.stderr)
        return 2
    print(out / "index.html")
    return 0
