"""Confidence intervals of what attacks report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """The two ends of a confidence interval."""

    low: float
    high: float


def clopper_pearson(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Returns the exact confidence interval of a binomial rate.

    low = Beta⁻¹(α/2; s, n - s + 1), high = Beta⁻¹(1 - α/2; s + 1, n - s), α = 1 - confidence.

    Args:
      successes: s.
      trials: n >= 1.
      confidence: in (0, 1).

    Raises:
      ValueError: no trials, successes outside 0 … n, or a confidence outside (0, 1).

    Source: Clopper & Pearson 1934.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"successes must be in 0 … trials >= 1, got {successes} of {trials}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    tail, failures = (1 - confidence) / 2, trials - successes
    low = stats.beta.ppf(tail, successes, failures + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, failures) if failures else 1.0
    return Interval(float(low), float(high))


def rate(name: str, successes: int, trials: int) -> dict[str, float]:
    """Returns the rate under `name`, and its exact 95 % interval as `name_low` and `name_high`."""
    low, high = clopper_pearson(successes, trials)
    return {name: successes / trials, f"{name}_low": low, f"{name}_high": high}


def mean_and_error(values: Sequence[float] | Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Returns the mean of independent values and its standard error.

    Raises:
      ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"a standard error needs at least 2 values, got {len(values)}")
    sample = np.asarray(values, np.float64)
    return float(sample.mean()), float(sample.std(ddof=1) / np.sqrt(sample.size))
