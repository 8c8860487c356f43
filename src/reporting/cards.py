"""What is behind the points of a page: command, configuration, revision and hardware of every run."""

from collections.abc import Iterator, Sequence
from html import escape

from src.reporting.markup import details, row, table
from src.reporting.run_settings import identity
from src.reporting.runs import Run


def anchors(runs: Sequence[Run]) -> dict[int, str]:
    """Return the anchor of each run's card by `id(run)`; runs that differ in their seed only share a card."""
    keys = [identity({"source": run.source, **run.settings.without_seed()}) for run in runs]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys), 1)}
    return {id(run): f"run-{numbers[key]}" for run, key in zip(runs, keys, strict=True)}


def cards(runs: Sequence[Run], at: dict[int, str]) -> Iterator[str]:
    """Yield a card for each anchor."""
    for anchor in dict.fromkeys(at.values()):
        same = [run for run in runs if at[id(run)] == anchor]
        first = same[0]
        folder = escape(str(first.folder)) + (f" and {len(same) - 1} more" if len(same) > 1 else "")
        config = "<p>no configuration in the run folder</p>"
        if first.config:
            config = details("configuration", f"<pre>{escape(first.config)}</pre>")
        yield (
            f'<details class="run"><summary><strong>{escape(first.settings.name)}</strong> '
            f'<span class="soft">{folder}</span></summary><div id="{anchor}">'
            f"{''.join(map(describe, same))}{config}</div></details>"
        )


def describe(run: Run) -> str:
    """Return file, seed, command and scores of a run."""
    seed = "" if run.settings.seed is None else f", seed {escape(str(run.settings.seed))}"
    state = "" if run.finished else " · not finished, these are the scores so far"
    step = f" · step {run.content['step']}" if "step" in run.content else ""
    command = f"<pre>{escape(run.command)}</pre>" if run.command else "<p>no command in the run folder</p>"
    return (
        f"<p>{escape(str(run.file))}{seed}{escape(step)}{state}</p>"
        f'<p class="soft">made by: {escape(run.made_by)}</p>{command}{all_scores(run)}'
    )


def all_scores(run: Run) -> str:
    """Return a folded table of every score with all its digits."""
    names = dict.fromkeys(name for scores in run.scores.values() for name in scores)
    rows = "".join(
        row([escape(policy), *(repr(scores[name]) if name in scores else "" for name in names)])
        for policy, scores in run.scores.items()
    )
    return details("all scores", table(["", *names], f"<tbody>{rows}</tbody>"))
