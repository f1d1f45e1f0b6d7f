"""Metrics of an attack that scores every example."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.metrics import roc_curve

from unlearnkit.auditing.intervals import bounded_interval, rate
from unlearnkit.base import Audited

LOW_FPRS = (0.01, 0.001)


class Auc(NamedTuple):
    """The area under the ROC curve and its standard error."""

    value: float
    standard_error: float


def score_attack(members: Float[np.ndarray, " m"], others: Float[np.ndarray, " k"]) -> Audited:
    """Returns how well scores, larger for members, tell members from others.

    Metrics: `auc` and `auc_se`, with a 95 % interval `auc_low`, `auc_high` that holds for a single
    member too (`bounded_interval` of as many values as the smaller side has, as the variance of an
    AUC A is at most A (1 - A) / min(m, k)); `auc_max` = max(AUC, 1 - AUC), as an attacker may turn
    a score around; `tpr_at_fpr_{0.01,0.001}`, see `tpr_at_fpr`, with exact 95 % intervals `_low`,
    `_high` given the threshold; `accuracy`, the balanced accuracy (TPR + 1 - FPR) / 2 at its best
    threshold, an optimistic number, as it is chosen on the same scores.

    Curves: `fpr` and `tpr`, from (0, 0) to (1, 1).

    Args:
      members: scores of examples that were trained on.
      others: scores of examples that were not.

    Raises:
      ValueError: no score of a kind, or one that is not finite.

    Source: Birnbaum & Klose 1957 (the bound on the variance).
    """
    check_scores(members, others)
    area = auc(members, others)
    interval = bounded_interval(area.value, min(len(members), len(others)))
    is_member = np.repeat([1, 0], [len(members), len(others)])
    scores = np.concatenate([members, others])
    fpr, tpr, _ = roc_curve(is_member, scores, drop_intermediate=False)
    metrics = {
        "auc": area.value,
        "auc_se": area.standard_error,
        "auc_low": interval.low,
        "auc_high": interval.high,
        "auc_max": max(area.value, 1 - area.value),
        "accuracy": float(np.max(tpr + 1 - fpr) / 2),
    }
    for target in LOW_FPRS:
        metrics |= tpr_at_fpr(members, others, target)
    return Audited(metrics, {"fpr": fpr, "tpr": tpr})


def placements(scores: np.ndarray, against: np.ndarray) -> np.ndarray:
    """Returns for each score the share of `against` below it, ties counting half."""
    ordered = np.sort(against)
    below, upto = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
    return (below + upto) / (2 * len(against))


def auc(members: Float[np.ndarray, " m"], others: Float[np.ndarray, " k"]) -> Auc:
    """Returns P(member > other) + ½ P(member = other), and its standard error.

    The variance of the placements of a single member, or other, which cannot be estimated, is taken
    for the largest possible, ¼.

    Source: DeLong, DeLong & Clarke-Pearson 1988 (variance of the placements).
    """
    by_member, by_other = placements(members, others), 1 - placements(others, members)
    spreads = [p.var(ddof=1) / p.size if p.size > 1 else 0.25 for p in (by_member, by_other)]
    variance = sum(spreads)
    return Auc(float(by_member.mean()), float(np.sqrt(variance)))


def tpr_at_fpr(
    members: Float[np.ndarray, " m"], others: Float[np.ndarray, " k"], target: float
) -> dict[str, float]:
    """Returns the share of members above the threshold that at most `target` of others exceed.

    Fewer than 1 / target others leave no false positive: the threshold is then their largest score.

    Args:
      members: [m] scores, larger for members.
      others: [k] scores of examples that are none.
      target: the false positive rate, in (0, 1).
    """
    allowed = int(np.floor(target * len(others) + 1e-9))
    threshold = np.sort(others)[::-1][min(allowed, len(others) - 1)]
    return rate(f"tpr_at_fpr_{target:g}", int(np.sum(members > threshold)), len(members))


def check_scores(members: np.ndarray, others: np.ndarray) -> None:
    """Raises ValueError if nothing can be estimated from the scores.

    Raises:
      ValueError: no score of a kind, or one that is not finite.
    """
    for name, scores in (("members", members), ("others", others)):
        if not len(scores):
            raise ValueError(f"{name} must hold at least 1 example, got none")
        if not np.all(np.isfinite(scores)):
            bad = int(np.argmin(np.isfinite(scores)))
            raise ValueError(
                f"scores of {name} must be finite, got {scores[bad]} at index {bad}; "
                "a network that gives NaN has diverged and cannot be audited"
            )
