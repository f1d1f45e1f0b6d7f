"""A trained membership attack on a single record, where no member can be held out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from unlearnkit.auditing.intervals import bounded_interval
from unlearnkit.auditing.scores import score_attack
from unlearnkit.base import Audited

MOST_OTHERS = 30


def attack_one(
    decide: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    member: Float[np.ndarray, "1 d"],
    others: Float[np.ndarray, "k d"],
    seed: int,
) -> Audited:
    """Returns how far one record stands out among examples that were not trained on.

    Cross-validation has no member left to train on. In its place every example, the record and up
    to 30 others alike, is once taken for the member: a classifier learns it against all the rest,
    and its score is the decision on itself. If the record is like the others, all these scores
    are exchangeable, and its rank among them is uniform.

    Metrics: those of `score_attack` on these scores; `accuracy`, the balanced accuracy of calling
    the half with the larger scores members, .25 or .75 (.5 at a tie), with `accuracy_se` and the
    95 % interval `accuracy_low`, `accuracy_high`; `folds` = 1.

    Args:
      decide: (x [n, d], y [k, n], weights [k, n]) -> the decisions [k, n] of k classifiers.
      member: features of the record.
      others: features of the non-members.
      seed: chooses the others.

    Source: Vovk et al. 2005 (full conformal prediction).
    """
    chosen = np.random.default_rng(seed).permutation(len(others))[:MOST_OTHERS]
    x = np.concatenate([member, others[chosen]]).astype(np.float64)
    # As often as there are others: neither side then counts for more.
    itself = np.eye(len(x))
    scores = np.diagonal(decide(x, itself, 1 + (len(x) - 2) * itself))
    audited = score_attack(scores[:1], scores[1:])
    above = (np.sign(scores[0] - np.median(scores[1:])) + 1) / 2
    ends = bounded_interval(float(above), 1)
    called = {"accuracy": above, "accuracy_low": ends.low, "accuracy_high": ends.high}
    metrics = {name: float((value + 0.5) / 2) for name, value in called.items()}
    return Audited(
        {**audited.metrics, **metrics, "accuracy_se": 0.25, "folds": 1.0}, audited.curves
    )
