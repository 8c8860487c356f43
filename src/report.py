"""Report runs from their folders alone: python -m src.report RUNS... [--out report]."""

import argparse
import sys
from pathlib import Path

from src.reporting.report import report

EPILOG = """
RUNS are run folders, sweep folders, or folders above them; runs are found by their scores.json and gate.json.
Runs whose settings differ in `seed` only are taken together: mean ± standard deviation.

  python -m src.report runs                                  everything there is
  python -m src.report runs/eco_gate_shapes/sweep_52289b5b   one sweep
  python -m src.report runs eco --out report/all             several folders, into a folder of choice

OUT gets index.html (one file, opens without a network), curve.png, table.csv (all digits, GFLOPs = 1e9
multiply-adds) and, where runs have them, classes.csv (the same of every class). What cannot be read is
skipped, and said in one line each; exit status 2 if nothing is left.
"""


def main() -> None:
    """Read, write, and print where the page is."""
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
    sys.exit(report(given.runs, given.out))


if __name__ == "__main__":
    main()
