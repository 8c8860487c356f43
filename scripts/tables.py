"""Markdown tables of results, and means over seeds."""

import statistics
from collections.abc import Sequence


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table without a newline at the end."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def mean_and_deviation(values: Sequence[float], digits: int = 2) -> str:
    """Return the mean over seeds, with the sample standard deviation if there are several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
