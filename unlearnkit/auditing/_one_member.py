"""A trained membership attack on a single record, where no member can be held out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from unlearnkit.auditing.intervals import bounded_interval
from unlearnkit.auditing.scores import score_attack
from unlearnkit.base import Audited

MOST_OTHERS = 30


def fit_classifier(classifier: Any, x: Float[np.ndarray, "n d"], y: np.ndarray) -> Any:
    """Returns the classifier, fitted.

    On outputs of a network that forgot far too much Newton's line search can fail; scikit-learn
    then solves the same convex problem by L-BFGS, which warns of its own where it fails too.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Line search of Newton solver")
        return classifier.fit(x, y)


def attack_one(
    classifier: Callable[[], Any],
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
      classifier: makes an untrained one.
      member: features of the record.
      others: features of the non-members.
      seed: chooses the others.

    Source: Vovk et al. 2005 (full conformal prediction).
    """
    chosen = np.random.default_rng(seed).permutation(len(others))[:MOST_OTHERS]
    x = np.concatenate([member, others[chosen]]).astype(np.float64)
    scores = np.array([_stands_out(classifier(), x, row) for row in range(len(x))])
    audited = score_attack(scores[:1], scores[1:])
    above = (np.sign(scores[0] - np.median(scores[1:])) + 1) / 2
    ends = bounded_interval(float(above), 1)
    called = {"accuracy": above, "accuracy_low": ends.low, "accuracy_high": ends.high}
    metrics = {name: float((value + 0.5) / 2) for name, value in called.items()}
    return Audited(
        {**audited.metrics, **metrics, "accuracy_se": 0.25, "folds": 1.0}, audited.curves
    )


def _stands_out(classifier: Any, x: np.ndarray, row: int) -> float:
    """Returns the decision on a row of a classifier that learned it against all the others.

    It is repeated until both sides have as many examples: neither then counts for more.
    """
    rest = np.delete(x, row, axis=0)
    repeated = np.repeat(x[[row]], len(rest), axis=0)
    y = np.repeat([1, 0], len(rest))
    fitted = fit_classifier(classifier, np.concatenate([repeated, rest]), y)
    return float(fitted.decision_function(x[[row]])[0])
