"""Every number of a report as CSV: of each run, means over seeds, and published figures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from src.records.csv_file import write_csv
from src.reporting.points import Panel
from src.reporting.published import published_on
from src.reporting.runs import Run


def write(runs: Sequence[Run], panels: Sequence[Panel], file: Path) -> None:
    """Write rows of three kinds, "run", "mean" and "published", with every column that one of them has.

    `pq sd` is the sample standard deviation of `pq`. Costs are 1e9 multiply-adds of an image: `image_gflops` and
    `gflops` at the images' own sizes, `total_gflops` of exits at one size.
    """
    write_csv([*rows_of_runs(runs), *rows_of_means(panels), *rows_of_published(panels)], file)


def write_classes(runs: Sequence[Run], file: Path) -> None:
    """Write all scores of every class with all digits; remove the file if there are none."""
    rows = [
        {**about(run), "exit": policy, "class": name, **scores}
        for run in runs
        for policy, classes in run.classes.items()
        for name, scores in classes.items()
    ]
    file.unlink(missing_ok=True)  # of an earlier report
    if rows:
        write_csv(rows, file)


def about(run: Run) -> dict[str, Any]:
    return {"source": str(run.file), "name": run.settings.name, "seed": run.settings.seed}


def rows_of_runs(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Yield all scores of all runs with all digits."""
    for run in runs:
        beta = {"beta": run.content["beta"]} if "beta" in run.content else {}
        made_by = {f"made_by {name}": value for name, value in run.provenance.items()}
        for policy, scores in run.scores.items():
            yield {"row": "run", **about(run), "exit": policy, **beta, **scores, "command": run.command, **made_by}


def rows_of_means(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """Yield means and standard deviations of every score for points with several seeds."""
    for point in (point for panel in panels for point in panel.points if len(point.runs) > 1):
        names = dict.fromkeys(name for run in point.runs for name in run.scores[point.policy])
        names.pop("beta", None)
        yield {
            "row": "mean",
            "source": "; ".join(str(run.file) for run in point.runs),
            "name": point.series,
            "seed": f"{len(point.runs)} seeds",
            "exit": point.policy,
            "beta": point.beta,
            **{name: point.mean(name) for name in names},
            **{f"{name} sd": point.deviation(name) for name in names},
        }


def rows_of_published(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    """Yield the published figures of the panels' data sets, each with its source."""
    for panel in panels:
        for one in published_on(panel.data_set, panel.quality):
            row = {"row": "published", "source": one.source, "name": one.model, panel.quality: one.score}
            measure = {"measure": one.measure} if one.measure else {}
            yield {**row, "total_gflops": one.gflops, **measure}
