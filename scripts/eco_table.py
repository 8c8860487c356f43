"""Results of choices of exits as Markdown: means over seeds, with standard deviations where there are several."""

import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from scripts.tables import mean_and_deviation
from src.records.markdown import markdown_table

Key = TypeVar("Key", bound=Hashable)


class Row(NamedTuple):
    """Mean result of a policy, such as "exit 2" or "oracle", over the scenes to judge by."""

    model: str
    seed: int
    choice: str
    beta: float
    quality: float  # PQ of a single image, 0 to 1
    utility: float  # quality - beta * depth
    depth: float  # encoder layers
    gflops: float
    chance: float  # quality of random exits with the same histogram

    @property
    def is_fixed(self) -> bool:
        return self.choice.startswith("exit")


def grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """Return the rows by key, in the order of their first appearance."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def gated_models(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row.model for row in rows if row.choice == "oracle"))


def markdown(rows: Sequence[Row]) -> str:
    """Return utility by beta for every model with gates, how far it is above chance, and the points of the curve."""
    parts = [by_beta([row for row in rows if row.model == model], model) for model in gated_models(rows)]
    return "\n\n".join([*parts, points(rows)]) + "\n"


def by_beta(rows: Sequence[Row], model: str) -> str:
    """Return two tables of one model: utility in points, and the share of the way from chance to the oracle."""
    policies = list(dict.fromkeys(row.choice for row in rows if not row.is_fixed))
    utilities = []
    shares = []
    for beta, of_beta in grouped(rows, lambda row: row.beta).items():
        by_seed = grouped(of_beta, lambda row: row.seed)
        seeds = [{row.choice: row for row in of_seed} for of_seed in by_seed.values()]
        columns = [[max(row.utility for row in choices.values() if row.is_fixed) for choices in seeds]]
        columns += [[choices[policy].utility for choices in seeds] for policy in policies]
        utilities.append([f"{beta:g}", *(mean_and_deviation([100 * value for value in column]) for column in columns)])
        columns = [[100 * share(choices, policy) for choices in seeds] for policy in policies]
        shares.append([f"{beta:g}", *(mean_and_deviation(column, 0) for column in columns)])
    return "\n\n".join(
        [
            f"**{model}**, utility: PQ of an image less beta for every layer, in points",
            markdown_table(["beta", "best fixed exit", *policies], utilities),
            f"**{model}**, how far from chance with the same exits (0) to the oracle (100)",
            markdown_table(["beta", *policies], shares),
        ]
    )


def points(rows: Sequence[Row]) -> str:
    """Return quality and cost of every policy; a fixed exit is the same for all betas and has one line."""
    shown = [row for row in rows if not row.is_fixed or row.beta == rows[0].beta]
    lines = []
    by_point = grouped(shown, lambda row: (row.model, row.choice, "" if row.is_fixed else f"{row.beta:g}"))
    for key, seeds in by_point.items():
        quality = mean_and_deviation([100 * row.quality for row in seeds])
        depth = mean_and_deviation([row.depth for row in seeds])
        lines.append([*key, quality, depth, f"{statistics.mean(row.gflops for row in seeds):.4f}"])
    return markdown_table(["model", "exits", "beta", "PQ of an image", "layers", "GFLOPs"], lines)


def share(choices: dict[str, Row], policy: str) -> float:
    """Return 0 for a policy as good as chance, 1 for one as good as the oracle."""
    row = choices[policy]
    chance_utility = row.utility - row.quality + row.chance
    headroom = choices["oracle"].utility - chance_utility
    return (row.quality - row.chance) / headroom if headroom else float("nan")
