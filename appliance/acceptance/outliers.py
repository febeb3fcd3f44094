"""Who is slower than the others of its kind: distance from the median in units of the usual distance from it."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

LEAST = 4  # values: of three, nobody can say which one is odd
SCORE = 3.5  # B. Iglewicz, D. Hoaglin: How to Detect and Handle Outliers, 1993, for the modified z-score
# The median absolute deviation times this is the standard deviation of normally distributed values (same book).
TO_DEVIATION = 1.4826
SLOW = 0.75  # of the median: where all others agree to a percent, being two percent off harms nobody


def outliers(values: Mapping[str, float]) -> dict[str, float]:
    """The names whose value is far below the others', with the median of all; empty for less than LEAST values. Being
    faster than the others is no fault."""
    if len(values) < LEAST:
        return {}
    middle = median(values.values())
    deviation = TO_DEVIATION * median(abs(value - middle) for value in values.values())
    return {
        name: middle for name, value in values.items() if value < SLOW * middle and middle - value > SCORE * deviation
    }
