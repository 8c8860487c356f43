"""Check whether a data set is fit for training: python -m src.validate_data data=coco_panoptic data.root=data/coco."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from src.config.build import data_of
from src.config.checkpoints import find_checkpoint
from src.config.command_line import CONF, run
from src.config.errors import report_errors
from src.config.saved_settings import saved_overrides
from src.painting import side_by_side
from src.records.csv_file import write_csv, write_problems
from src.system.atomic import atomic_write

EXAMPLES = 3  # of each kind that are printed
SIZES = ("small", "medium", "large", "unknown size", "crowd")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="validate_data")
@report_errors
def validate_data(cfg: DictConfig) -> None:
    """Print the problems of a data set and write them to the run folder; exit with status 1 if it is not fit."""
    find_checkpoint(cfg)  # raises if it does not exist; its settings are in the configuration already
    surveys = instantiate(cfg.validation)(data_of(cfg))
    folder, console = Path(cfg.paths.run), Console()
    problems = [(survey.split, problem) for survey in surveys for problem in survey.problems]
    keep(surveys, problems, folder)
    if problems:
        console.print(table_of(problems))
    for survey in surveys:
        print(summary(survey))
    if not cfg.decode:
        print("decode=false: files that are cut short, and segment ids in masks, were looked at in the samples only")
    broken = sum(problem.breaks for _, problem in problems)
    verdict = f"not fit for training: {broken} problems" if broken else "fit for training"
    print(f"{verdict}, {len(problems) - broken} warnings; all of it in {folder}")
    if broken:
        sys.exit(1)


def keep(surveys: Sequence[Any], problems: Sequence[tuple[str, Any]], folder: Path) -> None:
    """Write problems.csv, counts.csv and samples.png."""
    write_problems(problems, folder / "problems.csv")
    write_csv([{"split": survey.split, **row} for survey in surveys for row in survey.counts], folder / "counts.csv")
    if panels := {title: picture for survey in surveys for title, picture in survey.samples.items()}:
        with atomic_write(folder / "samples.png") as part:
            side_by_side(panels).save(part)


def table_of(problems: Sequence[tuple[str, Any]]) -> Table:
    """Return a table of problems by kind, before warnings, with counts and examples."""
    kinds: dict[tuple[bool, Any], list[str]] = {}
    for split, problem in problems:
        kinds.setdefault((not problem.breaks, problem.kind), []).append(f"{split}: {problem}")
    order = list(type(problems[0][1].kind).__members__.values())
    table = Table("", "kind", Column("count", justify="right"), Column("for example", overflow="fold"), show_lines=True)
    for (warning, kind), said in sorted(kinds.items(), key=lambda item: (item[0][0], order.index(item[0][1]))):
        shown = "\n".join(said[:EXAMPLES]).encode(errors="backslashreplace").decode()  # undecodable file names
        table.add_row("warning" if warning else "problem", kind, str(len(said)), escape(shown))
    return table


def summary(survey: Any) -> str:
    """Return the size of a split and the speed of the check, as a sentence."""
    if not survey.num_images:
        return f"{survey.split}: cannot be read"
    sizes = {name: sum(row[name] for row in survey.counts) for name in survey.counts[0] if name in SIZES}
    objects = ", ".join(f"{number} {name}" for name, number in sizes.items() if number) or "none in sound images"
    present = sum(row["images"] > 0 for row in survey.counts)
    return (
        f"{survey.split}: {survey.num_images} images, objects: {objects}; {present} of {len(survey.counts)} "
        f"classes; {survey.rate:.0f} images per minute and process"
    )


if __name__ == "__main__":
    run(validate_data, saved_overrides(sys.argv[1:]), "validate_data")
