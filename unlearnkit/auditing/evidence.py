"""What so many forgotten and so many unseen examples can show, before any of them is looked at."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special, stats

from unlearnkit.auditing.intervals import CONFIDENCE

_EXACT = 50
"""Numbers of orders are whole up to so many examples of the smaller set."""
_Z_LEVEL, _Z_POWER = 1.959964, 0.841621
_MOST = 10_000_000
"""Nobody has more unseen examples than that."""


class Need(NamedTuple):
    """A statement of an audit, and what it takes.

    Attributes:
      statement: in words, after `that`.
      unseen: unseen examples that it needs beside the forgotten ones; None where no number will do.
      met: whether there are as many.
    """

    statement: str
    unseen: int | None
    met: bool


def least_p_value(members: int, others: int) -> float:
    """Returns the smallest two-sided p-value that ranks of so many examples can give.

    min(1, 2 / C(m + k, m)): all m members above all k others, or below, of equally likely orders.

    Args:
      members: m >= 1 forgotten examples.
      others: k >= 0 unseen ones.

    Source: Mann & Whitney 1947 (the exact distribution of the rank sum).
    """
    _check(members, others)
    few = min(members, others)
    if few <= _EXACT:
        return min(1.0, 2 / math.comb(members + others, few))
    orders = special.gammaln([members + others + 1, members + 1, others + 1])
    return min(1.0, 2 * math.exp(-(orders[0] - orders[1] - orders[2])))


def rank_p_value(members: Float[np.ndarray, " m"], others: Float[np.ndarray, " k"]) -> float:
    """Returns the two-sided p-value that forgotten and unseen examples have like losses.

    It is that of the rank sum; of one example, whose rank among k others is uniform,

        min(1, 2 (1 + min(#{others <= x}, #{others >= x})) / (k + 1)).

    Args:
      members: [m] losses of the forgotten examples.
      others: [k] losses of the unseen ones.

    Raises:
      ValueError: none of one kind.

    Source: Mann & Whitney 1947.
    """
    _check(len(members), len(others) - 1)
    if len(members) > 1:
        return float(stats.mannwhitneyu(members, others).pvalue)
    x = float(members[0])
    rank = 1 + min(int(np.sum(others <= x)), int(np.sum(others >= x)))
    return min(1.0, 2 * rank / (len(others) + 1))


def least_visible_auc(members: int, others: int) -> float:
    """Returns the AUC from which on an attack is told from chance in four of five audits.

    ½ + (z_{.975} + z_{.8}) √((m + k + 1) / (12 m k)), at most 1: the variance is that of ranks
    where both sets are alike.

    Args:
      members: m >= 1 forgotten examples.
      others: k >= 1 unseen ones.

    Source: Mann & Whitney 1947 (the variance of the rank sum).
    """
    _check(members, others)
    if others == 0:
        return 1.0
    error = math.sqrt((members + others + 1) / (12 * members * others))
    return min(1.0, 0.5 + (_Z_LEVEL + _Z_POWER) * error)


def needs(members: int, others: int) -> list[Need]:
    """Returns what an audit may state, and how many unseen examples each statement needs.

    Args:
      members: forgotten examples, at least 1.
      others: unseen ones.

    Example:
      for statement, unseen, met in auditing.needs(members=1, others=20):
          print(statement, unseen, met)
    """
    _check(members, others)
    they = "it is" if members == 1 else "they are"
    found = []
    for level in (1 - CONFIDENCE, 0.01):
        said = f"{they} told apart, at the {100 * level:g} % level"
        found.append((said, _least(lambda k: least_p_value(members, k), level)))
    if members > 1:
        for rate in (0.01, 0.001):
            said = f"a share is found at a false positive rate of {rate:g}"
            found.append((said, math.ceil(1 / rate)))
    for auc in (0.9, 0.75, 0.6):
        said = f"an attack's AUC is {auc:g} or more, in 4 audits of 5"
        found.append((said, _least(lambda k: least_visible_auc(members, k), auc)))
    return [Need(said, count, count is not None and others >= count) for said, count in found]


def _least(of: Callable[[int], float], most: float) -> int | None:
    """Returns the least number of unseen examples for which a falling quantity is small enough."""
    if of(_MOST) > most:
        return None
    low, high = 0, _MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if of(middle) <= most else (middle, high)
    return high


def _check(members: int, others: int) -> None:
    if members < 1 or others < 0:
        raise ValueError(f"there must be members >= 1 and others >= 0, got {members} and {others}")
