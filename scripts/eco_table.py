"""What choices of exits come to, as Markdown: means over seeds, with standard deviations where there are several."""

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """A choice of exits for the scenes that are judged by, in the mean."""

    model: str
    seed: int
    choice: str
    beta: float
    quality: float  # PQ of a single image, 0 to 1
    utility: float  # quality less beta for every layer
    depth: float  # encoder layers
    gflops: float


GATES = ("gate exit", "gate quality")


def markdown(rows: Sequence[Row]) -> str:
    """Utilities by beta of every model that has gates, and then the points of the curve."""
    gated = list(dict.fromkeys(row.model for row in rows if row.choice == "oracle"))
    parts = [utilities(rows, model) for model in gated]
    return "\n\n".join([*parts, points(rows)]) + "\n"


def utilities(rows: Sequence[Row], model: str) -> str:
    """Utility of a model by beta and choice, and which part of the way from chance to the oracle a gate goes."""
    header = ["beta", "best fixed exit", *(name for gate in GATES for name in (gate, "random alike")), "oracle"]
    header += [f"share in %, {gate}" for gate in GATES]
    lines = []
    for beta in dict.fromkeys(row.beta for row in rows):
        found = by_seed(row for row in rows if (row.model, row.beta) == (model, beta))
        names = [name for gate in GATES for name in (gate, f"random as {gate}")]
        columns = [[best_fixed(choices) for choices in found]]
        columns += [[choices[name].utility for choices in found] for name in (*names, "oracle")]
        columns += [[share(choices, gate) for choices in found] for gate in GATES]
        lines.append([f"{beta:g}", *(spell([100 * value for value in column]) for column in columns)])
    title = (
        f"**{model}**: utility, that is PQ of an image less beta for every layer, and share of the oracle's headroom"
    )
    return f"{title}\n\n{table(header, lines)}"


def points(rows: Sequence[Row]) -> str:
    """Quality and cost of every choice."""
    header = ["model", "exits", "beta", "PQ of an image", "layers", "GFLOPs"]
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.choice.startswith("exit") and row.beta != rows[0].beta:
            continue  # to a fixed exit all betas are one
        beta = "" if row.choice.startswith("exit") else f"{row.beta:g}"
        found.setdefault((row.model, row.choice, beta), []).append(row)
    lines = [
        [*key, spell([100 * one.quality for one in ones]), spell([one.depth for one in ones], 2), f"{gflops(ones):.4f}"]
        for key, ones in found.items()
        if not key[1].startswith("random")
    ]
    return table(header, lines)


def by_seed(rows: Iterable[Row]) -> list[dict[str, Row]]:
    """Rows by choice, for each seed."""
    found: dict[int, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.seed, {})[row.choice] = row
    return list(found.values())


def best_fixed(choices: dict[str, Row]) -> float:
    return max(row.utility for name, row in choices.items() if name.startswith("exit"))


def share(choices: dict[str, Row], gate: str) -> float:
    """0: as good as chance; 1: as good as the oracle."""
    chance = choices[f"random as {gate}"].utility
    headroom = choices["oracle"].utility - chance
    return (choices[gate].utility - chance) / headroom if headroom else float("nan")


def gflops(rows: Sequence[Row]) -> float:
    return statistics.mean(row.gflops for row in rows)


def spell(values: Sequence[float], digits: int = 2) -> str:
    """The mean of distinct seeds, and their standard deviation."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *lines))
