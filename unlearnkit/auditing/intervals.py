"""Confidence intervals for the metrics of attacks."""

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
    """Returns the rate under `name`, and its exact 95 % interval as `name_low` and `name_high`.

    Args:
      name: under which it is reported.
      successes: 0 … trials.
      trials: at least 1.
    """
    low, high = clopper_pearson(successes, trials)
    return {name: successes / trials, f"{name}_low": low, f"{name}_high": high}


def bounded_mean(
    name: str,
    values: Sequence[float] | Float[np.ndarray, " n"],
    *,
    least: float = 0.0,
    most: float = 1.0,
) -> dict[str, float]:
    """Returns the mean of independent values in [least, most], its error and a 95 % interval.

    The interval is that of `bounded_interval`, which one value answers for too: with u = 1 of
    [0, 1] it is [0.025, 1]. The standard error of one value, whose spread cannot be estimated, is
    the largest that such a quantity can have, (most - least) / 2.

    Args:
      name: of the mean; the others are `{name}_se`, `{name}_low` and `{name}_high`.
      values: [n], n >= 1.
      least: what no value is below.
      most: what no value is above.

    Raises:
      ValueError: no values, or a value out of its bounds.
    """
    sample = np.asarray(values, np.float64)
    if not sample.size or not least <= sample.min() <= sample.max() <= most:
        raise ValueError(
            f"values must be in [{least:g}, {most:g}], and at least one, got {sample.tolist()[:3]}"
        )
    width, mean = most - least, float(sample.mean())
    spread = sample.std(ddof=1) if sample.size > 1 else width / 2
    low, high = bounded_interval((mean - least) / width, sample.size)
    return {
        name: mean,
        f"{name}_se": float(spread / np.sqrt(sample.size)),
        f"{name}_low": least + width * low,
        f"{name}_high": least + width * high,
    }


def bounded_interval(mean: float, count: int) -> Interval:
    """Returns a 95 % interval of the expectation of a quantity in [0, 1].

    low = Beta⁻¹(α/2; s, n - s + 1), high = Beta⁻¹(1 - α/2; s + 1, n - s), s = n · mean

    It is Clopper and Pearson's with a number of successes that need not be whole: of all quantities
    in [0, 1] with one mean, those that are 0 or 1 vary most.

    Args:
      mean: of the values, in [0, 1].
      count: n >= 1 independent values.
    """
    tail = (1 - CONFIDENCE) / 2
    successes = float(np.clip(mean, 0, 1)) * count
    failures = count - successes
    low = stats.beta.ppf(tail, successes, failures + 1) if successes > 0 else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, failures) if failures > 0 else 1.0
    # Beyond the mean by rounding where s is within it of 0 or n.
    return Interval(min(float(low), mean), max(float(high), mean))


def mean_and_error(values: Sequence[float] | Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Returns the mean of independent values and its standard error.

    Raises:
      ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"a standard error needs at least 2 values, got {len(values)}")
    sample = np.asarray(values, np.float64)
    return float(sample.mean()), float(sample.std(ddof=1) / np.sqrt(sample.size))


def mean_and_reach(
    values: Sequence[float] | Float[np.ndarray, "n ..."], level: float = CONFIDENCE
) -> tuple[Float[np.ndarray, ...], Float[np.ndarray, ...]]:
    """Returns means over the first axis and half the width of their intervals (Student's t).

    reach = t_{n-1, (1 + level) / 2} s / √n, with s the sample's deviation; NaN for one value.

    Args:
      values: n independent values, or rows of them.
      level: of the interval.
    """
    sample = np.asarray(values, np.float64)
    mean = sample.mean(axis=0)
    if len(sample) < 2:
        return mean, np.full_like(mean, np.nan)
    error = sample.std(axis=0, ddof=1) / np.sqrt(len(sample))
    return mean, np.asarray(stats.t.isf((1 - level) / 2, len(sample) - 1) * error)


def gap_and_reach(
    first: Sequence[float] | Float[np.ndarray, " n"],
    second: Sequence[float] | Float[np.ndarray, " m"],
    level: float = CONFIDENCE,
) -> tuple[Float[np.ndarray, ""], Float[np.ndarray, ""]]:
    """Returns the difference of two means and half the width of its interval (Welch).

    reach = t_{ν, (1 + level) / 2} √(s₁² / n + s₂² / m), with the degrees of freedom
    ν = (s₁² / n + s₂² / m)² / ((s₁² / n)² / (n - 1) + (s₂² / m)² / (m - 1)); NaN where one of them
    has one value alone. It is for values that come in no pairs: of pairs, `mean_and_reach` of
    their differences is narrower.

    Args:
      first: n independent values.
      second: m values, independent of the first.
      level: of the interval.

    Source: Welch 1947.

    Example:
      >>> from unlearnkit.auditing import gap_and_reach
      >>> mean, reach = gap_and_reach([5.0, 7.0], [1.0, 2.0, 3.0])
      >>> f"{mean:.1f} {reach:.1f}"
      '4.0 6.0'
    """
    one, two = (np.asarray(values, np.float64) for values in (first, second))
    gap = np.asarray(one.mean() - two.mean())
    if min(len(one), len(two)) < 2:
        return gap, np.asarray(np.nan)
    errors = np.asarray([sample.var(ddof=1) / len(sample) for sample in (one, two)])
    total = errors.sum()
    if total == 0:
        return gap, np.asarray(0.0)
    freedom = 1 / ((errors / total) ** 2 / [len(one) - 1, len(two) - 1]).sum()
    return gap, np.asarray(stats.t.isf((1 - level) / 2, freedom) * np.sqrt(total))
