"""Markdown tables of results, and means over seeds."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from src.records.markdown import markdown_table


def of_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of the same names as a table in Markdown."""
    return markdown_table([*rows[0]], [[spell(value) for value in row.values()] for row in rows])


def spell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def mean_and_deviation(values: Sequence[float], digits: int = 2) -> str:
    """Return the mean over seeds, with the sample standard deviation if there are several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
