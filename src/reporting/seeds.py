"""Means and standard deviations over seeds, as numbers and as text."""

import math
import statistics
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """Return the mean, NaN of no values."""
    return statistics.mean(values) if values else math.nan


def deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation, None of fewer than two values."""
    if len(values) < 2:
        return None
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


def spell(values: Sequence[float], form: str) -> str:
    """Return the mean as text, with the standard deviation if there are several values; a dash for NaN."""
    if math.isnan(mean(values)):
        return "–"
    spread = deviation(values)
    return f"{mean(values):{form}}" + ("" if spread is None else f" ± {spread:{form.lstrip('+')}}")
