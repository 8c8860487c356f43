"""What is behind the points of a page: command, configuration, revision and machine of every run."""

from collections.abc import Iterator, Sequence
from html import escape

from src.reporting.run_settings import identity
from src.reporting.runs import Run


def places(runs: Sequence[Run]) -> dict[int, str]:
    """Where on the page each run is described; runs that differ in their seed only share a place."""
    keys = [identity({"source": run.source, **run.settings.but()}) for run in runs]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys), 1)}
    return {id(run): f"run-{numbers[key]}" for run, key in zip(runs, keys, strict=True)}


def cards(runs: Sequence[Run], at: dict[int, str]) -> Iterator[str]:
    """A card for each place."""
    for place in dict.fromkeys(at.values()):
        same = [run for run in runs if at[id(run)] == place]
        shown = escape(str(same[0].folder)) + (f" and {len(same) - 1} more" if len(same) > 1 else "")
        config = same[0].config
        settings = "<p>no configuration in the run folder</p>"
        if config:
            settings = f"<details><summary>configuration</summary><pre>{escape(config)}</pre></details>"
        yield (
            f'<details class="run"><summary><strong>{escape(same[0].settings.name)}</strong> '
            f'<span class="soft">{shown}</span></summary><div id="{place}">'
            f"{''.join(card(run) for run in same)}{settings}</div></details>"
        )


def card(run: Run) -> str:
    """One run, with its scores as they were written."""
    seed = "" if run.settings.seed is None else f", seed {escape(str(run.settings.seed))}"
    state = "" if run.finished else " · not finished, these are the scores so far"
    step = f" · step {run.about['step']}" if "step" in run.about else ""
    command = f"<pre>{escape(run.command)}</pre>" if run.command else "<p>no command in the run folder</p>"
    return (
        f"<p>{escape(str(run.file))}{seed}{escape(step)}{state}</p>"
        f'<p class="soft">made by: {escape(run.made_by)}</p>{command}{numbers(run)}'
    )


def numbers(run: Run) -> str:
    """Every score with all its digits, out of sight until asked for."""
    names = list(dict.fromkeys(name for row in run.scores.values() for name in row))
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *names))
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in (who, *written(row, names))) + "</tr>"
        for who, row in run.scores.items()
    )
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f"<details><summary>all scores</summary>{table}</details>"


def written(row: dict[str, float], names: Sequence[str]) -> list[str]:
    """Numbers as JSON has them."""
    return [repr(row[name]) if name in row else "" for name in names]
