"""Report runs from their folders alone: python -m src.report RUNS... [--out report]."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from src.reporting import table
from src.reporting.curve import write_png
from src.reporting.gallery import gallery
from src.reporting.judgements import find_judged, judgements
from src.reporting.page import page
from src.reporting.points import panels, superseded
from src.reporting.runs import Skipped, find
from src.system.atomic import write_text
from src.system.terminal import fail

EPILOG = """
RUNS are run folders, sweep folders, or folders above them; runs are found by their scores.json and gate.json,
judgements of gates by the judge.json of src.judge and src.eco.
Runs whose settings differ in `seed` only are taken together: mean ± standard deviation.

  python -m src.report runs                                  all runs
  python -m src.report runs/eco_gate_shapes/sweep_52289b5b   one sweep
  python -m src.report runs eco --out report/all             several folders, into a folder of your choice

OUT gets index.html (one file, opens without a network), curve.png, table.csv (all digits, GFLOPs = 1e9
multiply-adds) and, if runs have scores of classes, classes.csv. What cannot be read is skipped and reported
in one line each. Exits with status 2 if no run is left.
"""


def main() -> None:
    """Read the command line, and write the report."""
    parser = argparse.ArgumentParser(
        "python -m src.report",
        description="Report runs: quality against GFLOPs, as a page, a picture and a table.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUNS", nargs="+", type=Path, help="folders of runs")
    parser.add_argument(
        "--out", metavar="OUT", type=Path, default=Path("report"), help="folder to write; default: report"
    )
    given = parser.parse_args()
    report(given.runs, given.out)


def report(places: Sequence[Path], out: Path) -> None:
    """Write the report of all runs in some folders, and print the path of its page.

    Raises SystemExit if there is no run, or `out` cannot be written.
    """
    runs, skipped = find(places)
    judged, damaged = find_judged(places)
    skipped += damaged
    found = panels(runs)
    skipped += [Skipped(run.file, "a newer run has its settings and its seed") for run in superseded(runs, found)]
    pictures, unread = gallery(runs)
    skipped += unread
    for one in skipped:
        print(f"skipped: {one.place}: {one.why}", file=sys.stderr)
    if not runs and not judged:
        fail("nothing to report; expected folders with scores.json, gate.json or judge.json in them")
    try:
        write_text(page(runs, found, skipped, judgements(judged) + pictures), out / "index.html")
        if found:
            write_png([view for panel in found for view in (panel, *panel.timed().values())], out / "curve.png")
        table.write(runs, found, out / "table.csv")
        table.write_classes(runs, out / "classes.csv")
    except OSError as error:
        fail(f"--out {out}: {error.strerror or error}")
    print(out / "index.html")


if __name__ == "__main__":
    main()
