"""What to deploy within a budget, from run folders alone: python -m src.plan RUNS... budget_ms=40."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from src.records.markdown import markdown_table
from src.reporting.plan import Budget, candidates, choose, command, machine_of, rows
from src.reporting.runs import find
from src.system.atomic import write_json, write_text
from src.system.terminal import fail

SETTINGS = ("budget_ms", "budget_gflops", "machine", "out")
EPILOG = """
RUNS are run folders, sweep folders, or folders above them, of trainings and evaluations: one for each model, gate and
input size to choose from, scored on the same images. Times come from the latency.json of src.measure in the run folder
of a checkpoint; a gate's from exits.csv. Exports take part once they are scored: python -m scripts.score_export
FOLDER ckpt_path=FILE --out runs/exports, and python -m src.measure export=FOLDER.

  python -m src.plan runs budget_ms=40                       the best in 40 ms per image, on average
  python -m src.plan runs eco budget_gflops=60 out=plan      without times; writes plan/plan.md and plan/plan.json
  python -m src.plan runs budget_ms=40 machine='8 threads'   if times of several machines are there

  budget_ms=N or budget_gflops=N    the mean cost of an image; the best quality within it is chosen
  machine=NAME                      whose times count, or a part of its name; not needed if there is one
  out=FOLDER                        gets plan.md and plan.json

Prints all candidates, marks the Pareto set, and ends with the command that exports the choice, or that runs it if it is
an export. Exits with status 2 if nothing is within the budget.
"""


def main() -> None:
    """Read the command line, and print the plan."""
    parser = argparse.ArgumentParser(
        "python -m src.plan",
        usage="%(prog)s RUNS... budget_ms=N",
        description="Choose what to deploy: model, schedule, exit or gate, input size and precision.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", metavar="RUNS|NAME=VALUE", nargs="+", help="folders of runs, and settings as below")
    places, settings = split(parser.parse_args().words)
    try:
        plan(places, budget_of(settings), settings.get("machine"), settings.get("out"))
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"out={settings.get('out')}: {error.strerror or error}")


def split(words: Sequence[str]) -> tuple[list[Path], dict[str, str]]:
    """Return folders and settings; exit with one line for anything else."""
    places, settings = [], {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in SETTINGS:
            settings[name] = value
        elif equals and not Path(word).exists():
            fail(f"{word}: no such setting or folder; settings are {', '.join(SETTINGS)}")
        else:
            places.append(Path(word))
    if not places:
        fail("no folders of runs given; expected python -m src.plan RUNS... budget_ms=N")
    return places, settings


def budget_of(settings: Mapping[str, str]) -> Budget:
    """Return the budget. Raises ValueError unless there is exactly one, a number above 0."""
    given = [name for name in ("budget_ms", "budget_gflops") if name in settings]
    if len(given) != 1:
        said = " and ".join(f"{name}={settings[name]}" for name in given) or "no budget"
        raise ValueError(f"{said}: expected one of budget_ms=N and budget_gflops=N")
    try:
        limit = float(settings[given[0]])
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise ValueError(f"{given[0]}={settings[given[0]]}: expected a number above 0")
    return Budget(given[0], limit)


def plan(places: Sequence[Path], budget: Budget, machine: str | None, out: str | None) -> None:
    """Print the plan, and write it to a folder. Raises ValueError if there is nothing to choose."""
    runs, skipped = find(places)
    for one in skipped:
        print(f"skipped: {one.place}: {one.why}", file=sys.stderr)
    if machine is not None or budget.setting == "budget_ms":
        machine = machine_of(runs, machine)
    else:
        names = {name for run in runs for name in run.measured}
        machine = names.pop() if len(names) == 1 else None
    quality, found = candidates(runs, machine)
    chosen = choose(found, budget)
    shown, exports = rows(found, quality, budget, chosen), command(chosen, budget)
    title = f"{budget.setting}={budget.limit:g}" + ("" if machine is None else f", times on {machine}")
    choice = f"{chosen.run.folder}, {chosen.left_at}: {quality} {chosen.quality:.2f}, " + costs(
        chosen.ms, chosen.gflops
    )
    print_table(shown, title)
    print(f"\n{choice}\n\n{exports}")
    if out is not None:
        write_text(markdown(shown, title, choice, exports), Path(out, "plan.md"))
        about = {"budget": budget._asdict(), "machine": machine, "quality": quality, "command": exports}
        write_json({**about, "candidates": shown}, Path(out, "plan.json"))


def costs(ms: float | None, gflops: float) -> str:
    return f"{gflops:.4g} GFLOPs" if ms is None else f"{ms:.4g} ms, {gflops:.4g} GFLOPs"


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return the values of a row as text; a star stands for the Pareto set, an arrow for the choice."""
    mark = f"{'*' if row['Pareto'] else ''}{'<-' if row['chosen'] else ''}"
    values = [value for name, value in row.items() if name not in ("Pareto", "chosen")]
    return ["" if one is None else f"{one:.4g}" if isinstance(one, float) else str(one) for one in values] + [mark]


def header(row: Mapping[str, Any]) -> list[str]:
    return [name for name in row if name not in ("Pareto", "chosen")] + [""]


def print_table(shown: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print all candidates."""
    caption = "* on the Pareto set: nothing as cheap is as good; <- the choice"
    columns = [Column(name, overflow="fold", justify="left" if name == "run" else "right") for name in header(shown[0])]
    table = Table(*columns, title=title, title_justify="left", caption=caption, caption_justify="left")
    for row in shown:
        table.add_row(*cells(row))
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


def markdown(shown: Sequence[Mapping[str, Any]], title: str, choice: str, exports: str) -> str:
    """Return the plan as a page."""
    lines = [f"# {title}", "", f"Choice: {choice}", "", "```bash", exports, "```", ""]
    lines += ["", "`*` is on the Pareto set: nothing as cheap is as good.", ""]
    return "\n".join([*lines, markdown_table(header(shown[0]), [*map(cells, shown)])]) + "\n"


if __name__ == "__main__":
    main()
