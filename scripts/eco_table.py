"""Results of choices of exits as Markdown: means over seeds, with standard deviations where there are several."""

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scripts.tables import markdown as table
from scripts.tables import mean_and_deviation


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


def markdown(rows: Sequence[Row]) -> str:
    """Return utility by beta for every model with gates, how far it is above chance, and the points of the curve."""
    gated = dict.fromkeys(row.model for row in rows if row.choice == "oracle")
    parts = [by_beta([row for row in rows if row.model == model], model) for model in gated]
    return "\n\n".join([*parts, points(rows)]) + "\n"


def by_beta(rows: Sequence[Row], model: str) -> str:
    """Return two tables of one model: utility in points, and the share of the way from chance to the oracle."""
    policies = list(dict.fromkeys(row.choice for row in rows if not row.is_fixed))
    utilities = []
    shares = []
    for beta in dict.fromkeys(row.beta for row in rows):
        seeds = by_seed(row for row in rows if row.beta == beta)
        columns = [[best_fixed(choices) for choices in seeds]]
        columns += [[choices[policy].utility for choices in seeds] for policy in policies]
        utilities.append([f"{beta:g}", *(mean_and_deviation([100 * value for value in column]) for column in columns)])
        columns = [[100 * share(choices, policy) for choices in seeds] for policy in policies]
        shares.append([f"{beta:g}", *(mean_and_deviation(column, 0) for column in columns)])
    return "\n\n".join(
        [
            f"**{model}**, utility: PQ of an image less beta for every layer, in points",
            table(["beta", "best fixed exit", *policies], utilities),
            f"**{model}**, how far from chance with the same exits (0) to the oracle (100)",
            table(["beta", *policies], shares),
        ]
    )


def points(rows: Sequence[Row]) -> str:
    """Return quality and cost of every policy; a fixed exit is the same for all betas and has one line."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if not row.is_fixed:
            groups.setdefault((row.model, row.choice, f"{row.beta:g}"), []).append(row)
        elif row.beta == rows[0].beta:
            groups.setdefault((row.model, row.choice, ""), []).append(row)
    lines = []
    for key, seeds in groups.items():
        quality = mean_and_deviation([100 * row.quality for row in seeds])
        depth = mean_and_deviation([row.depth for row in seeds])
        lines.append([*key, quality, depth, f"{statistics.mean(row.gflops for row in seeds):.4f}"])
    return table(["model", "exits", "beta", "PQ of an image", "layers", "GFLOPs"], lines)


def by_seed(rows: Iterable[Row]) -> list[dict[str, Row]]:
    """Return the rows by policy for each seed."""
    seeds: dict[int, dict[str, Row]] = {}
    for row in rows:
        seeds.setdefault(row.seed, {})[row.choice] = row
    return list(seeds.values())


def best_fixed(choices: dict[str, Row]) -> float:
    return max(row.utility for row in choices.values() if row.is_fixed)


def share(choices: dict[str, Row], policy: str) -> float:
    """Return 0 for a policy as good as chance, 1 for one as good as the oracle."""
    row = choices[policy]
    chance_utility = row.utility - row.quality + row.chance
    headroom = choices["oracle"].utility - chance_utility
    return (row.quality - row.chance) / headroom if headroom else float("nan")
