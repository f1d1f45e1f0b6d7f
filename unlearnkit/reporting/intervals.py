"""Means of several seeds with their intervals, as numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unlearnkit.auditing import gap_and_reach, mean_and_reach

FINEST = 5e-5
"""Means below it, which four digits show as 0, decide nothing."""


def interval(
    values: Sequence[float] | np.ndarray,
    among: int = 1,
    apart: Sequence[float] | np.ndarray | None = None,
) -> tuple[float, float]:
    """Returns the mean and the half-width of its interval of 1 - 0.05 / `among`; NaN for one.

    Args:
      values: one per seed.
      among: how many intervals share the 5 %.
      apart: values of other runs, whose mean is subtracted (Welch's interval).
    """
    level = 1 - 0.05 / among
    found = mean_and_reach(values, level) if apart is None else gap_and_reach(values, apart, level)
    mean, reach = map(float, found)
    return mean, reach


def in_words(
    values: Sequence[float] | np.ndarray,
    undecided: bool,
    among: int = 1,
    apart: Sequence[float] | np.ndarray | None = None,
) -> str:
    """Returns the mean with its interval, and what keeps it from being decided.

    Args:
      values: one per seed.
      undecided: whether to say what limits it.
      among: how many intervals share the 5 %.
      apart: values of other runs, whose mean is subtracted.
    """
    mean, reach = interval(values, among, apart)
    if np.isnan(reach):
        return f"{mean:+.4f} (one seed)"
    seeds = f"{len(values)} seeds" if apart is None else f"{len(values)} and {len(apart)} seeds"
    what = f"the spread over {seeds}" if reach > FINEST else "its last digit"
    return f"{mean:+.4f} ± {reach:.4f}" + f", limited by {what}" * undecided
