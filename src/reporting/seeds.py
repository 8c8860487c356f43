"""What several seeds come to, in numbers and as one reads them."""

import math
import statistics
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """nan of none."""
    return statistics.mean(values) if values else math.nan


def deviation(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample; None of a single seed."""
    if len(values) < 2:
        return None
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


def spell(values: Sequence[float], form: str) -> str:
    """A mean, and its standard deviation where there are several."""
    if math.isnan(mean(values)):
        return "–"
    spread = deviation(values)
    return f"{mean(values):{form}}" + ("" if spread is None else f" ± {spread:{form.lstrip('+')}}")
