"""Every number of a report as CSV: as the runs wrote it, as means over seeds, and as published."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from src.records.csv_file import write_csv
from src.reporting.points import Panel, Point
from src.reporting.published import published_on
from src.reporting.runs import Run


def write(runs: Sequence[Run], panels: Sequence[Panel], file: Path) -> None:
    """Rows of three kinds, "run", "mean" and "published", with every column that one of them has.

    Deviations (`pq sd`) are those of samples; costs are 1e9 multiply-adds of an image: `image_gflops` and
    `gflops` at the images' own sizes, `total_gflops` of exits at one size.
    """
    write_csv([*rows_of_runs(runs), *rows_of_means(panels), *rows_of_published(panels)], file)


def write_classes(runs: Sequence[Run], file: Path) -> None:
    """All scores of every class, digit by digit; no file where no run has any."""
    rows = [
        {"source": str(run.file), "name": run.settings.name, "seed": run.settings.seed}
        | {"exit": who, "class": name, **scores}
        for run in runs
        for who, classes in run.classes.items()
        for name, scores in classes.items()
    ]
    file.unlink(missing_ok=True)  # of an earlier report
    if rows:
        write_csv(rows, file)


def rows_of_runs(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """All scores of all runs, digit by digit."""
    for run in runs:
        about = {"row": "run", "source": str(run.file), "name": run.settings.name, "seed": run.settings.seed}
        behind = {"command": run.command, **{f"made_by {name}": value for name, value in run.maker.items()}}
        for who, scores in run.scores.items():
            beta = {"beta": run.about["beta"]} if "beta" in run.about else {}
            yield {**about, "exit": who, **beta, **scores, **behind}


def rows_of_means(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """Means and deviations of what several seeds have."""
    for panel in panels:
        for point in panel.points:
            if len(point.runs) > 1:
                yield {
                    "row": "mean",
                    "source": "; ".join(str(run.file) for run in point.runs),
                    "name": point.series,
                    "seed": f"{len(point.runs)} seeds",
                    "exit": point.who,
                    "beta": point.beta,
                    **moments(point),
                }


def moments(point: Point) -> dict[str, float | None]:
    """Mean and standard deviation of every score."""
    names = [name for name in dict.fromkeys(n for run in point.runs for n in run.scores[point.who]) if name != "beta"]
    means = {name: point.mean(name) for name in names}
    return {**means, **{f"{name} sd": point.deviation(name) for name in names}}


def rows_of_published(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """What others published of the same data, with where it is from."""
    for panel in panels:
        for one in published_on(panel.data_set, panel.quality):
            yield {
                "row": "published",
                "source": one.source,
                "name": one.model,
                panel.quality: one.score,
                "total_gflops": one.gflops,
                **({"measure": one.measure} if one.measure else {}),
            }
