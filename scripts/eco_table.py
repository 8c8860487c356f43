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
    chance: float  # quality if as many images left at each exit, but drawn by lot


def markdown(rows: Sequence[Row]) -> str:
    """Utilities by beta of every model that has gates, how far above chance they are, and points of the curve."""
    gated = list(dict.fromkeys(row.model for row in rows if row.choice == "oracle"))
    return (
        "\n\n".join([*(by_beta([row for row in rows if row.model == model], model) for model in gated), points(rows)])
        + "\n"
    )


def by_beta(rows: Sequence[Row], model: str) -> str:
    """Two tables of one model: utility in points, and the share of the way from chance to the oracle."""
    names = [name for name in dict.fromkeys(row.choice for row in rows) if not name.startswith("exit")]
    utilities, shares = [], []
    for beta in dict.fromkeys(row.beta for row in rows):
        seeds = by_seed(row for row in rows if row.beta == beta)
        columns = [[best_fixed(choices) for choices in seeds]]
        columns += [[choices[name].utility for choices in seeds] for name in names]
        utilities.append([f"{beta:g}", *(spell([100 * value for value in column]) for column in columns)])
        ways = [[100 * share(choices, name) for choices in seeds] for name in names]
        shares.append([f"{beta:g}", *(spell(way, 0) for way in ways)])
    said = f"**{model}**, utility: PQ of an image less beta for every layer, in points"
    way = f"**{model}**, how far from chance with the same exits (0) to the oracle (100)"
    first = table(["beta", "best fixed exit", *names], utilities)
    return f"{said}\n\n{first}\n\n{way}\n\n{table(['beta', *names], shares)}"


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


def share(choices: dict[str, Row], name: str) -> float:
    """0: as good as chance; 1: as good as the oracle."""
    row = choices[name]
    gain, most = row.quality - row.chance, choices["oracle"].utility - (row.utility - row.quality + row.chance)
    return gain / most if most else float("nan")


def gflops(rows: Sequence[Row]) -> float:
    return statistics.mean(row.gflops for row in rows)


def spell(values: Sequence[float], digits: int = 2) -> str:
    """The mean of distinct seeds, and their standard deviation."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *lines))
