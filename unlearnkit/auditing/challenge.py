"""Forgetting quality in the form in which the NeurIPS 2023 challenge was scored."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from unlearnkit.auditing.intervals import mean_and_error
from unlearnkit.auditing.klom import check_ensembles
from unlearnkit.base import Audited

DELTA = 1e-5
LARGEST_EPSILON = 50.0
PEAK = 0.01
"""A range of outputs below this share of the other's is a peak, of the largest ε."""
THRESHOLDS_PER_UNIT = 100
BUFFER = 2.0
"""How far the thresholds reach beyond the outputs."""
BIN_WIDTH = 0.5


def challenge_forgetting_quality(
    unlearned: Float[np.ndarray, "m n"], retrained: Float[np.ndarray, "m n"]
) -> Audited:
    """Returns the forgetting quality F as the public scorer of the challenge computes it.

    F = mean_s H(ε_s),   H(ε) = 2^-⌊2 ε⌋ for ε < ⌈log(m - 1)⌉, else 0

    with ε_s of `challenge_epsilons`. It differs from `forgetting_quality`, which is ours: there are
    attacks with two thresholds too; δ is 1e-5; a peaked ensemble earns nothing; and ε beyond what m
    networks can show earns nothing, where ours gives the last bin's points. Ours tries every
    threshold that m networks tell apart, and not those of a grid.

    The scorer's ensemble of unlearned networks comes from one original, unlearned with m keys:
    `unlearned_ensemble(..., originals="one")`. It scores the whole with `challenge_score`.

    Args:
      unlearned: margins z_y - logsumexp_{c≠y} z_c of the n forget examples under each of m networks
        unlearned independently; the challenge has m = 512.
      retrained: the same under m networks retrained without the forget set.

    Returns:
      Metrics: `challenge_forgetting_quality` and `challenge_forgetting_quality_se` over the
      examples, `challenge_epsilon_median`, `challenge_epsilon_limit` = ⌈log(m - 1)⌉. Curves:
      `epsilon` and `score` [n].

    Raises:
      ValueError: ensembles of different examples or sizes or of fewer than three networks, outputs
        that are not finite, or an example of which no attack's ε is known.

    Source: Triantafillou et al. 2024, Are we making progress in unlearning?; the public scorer,
    google-deepmind/unlearning_evaluation, whose bins of points these are. It computes rates in
    float32 and the margins as log(p + 1e-45), which caps them at 103.6; here both are in float64.
    """
    epsilons = challenge_epsilons(unlearned, retrained)
    limit = float(np.ceil(np.log(len(unlearned) - 1)))
    points = 2.0 ** -np.floor(epsilons / BIN_WIDTH)
    score = np.where(epsilons < limit, points, 0.0)
    mean, error = mean_and_error(score)
    metrics = {
        "challenge_forgetting_quality": mean,
        "challenge_forgetting_quality_se": error,
        "challenge_epsilon_median": float(np.median(epsilons)),
        "challenge_epsilon_limit": limit,
    }
    return Audited(metrics, {"epsilon": epsilons, "score": score})


def challenge_epsilons(
    unlearned: Float[np.ndarray, "m n"], retrained: Float[np.ndarray, "m n"]
) -> Float[np.ndarray, " n"]:
    """Returns the ε of each example that the best of the scorer's attacks shows, at most 50.

    ε_s = max over attacks of max(0, log (1 - δ - FPR) / FNR, log (1 - δ - FNR) / FPR),   δ = 1e-5

    One family of attacks calls a network `positive` where its output is at least a threshold; the
    positives are the ensemble with the larger median, and the thresholds lie 100 per unit between
    the least and the largest output. The other calls those between two thresholds the narrower
    ensemble: the right one goes from 2 below the narrower ensemble's largest output to 2 above it,
    the left one from 2 below to 2 above the right one less the ensemble's width, 100 per unit.
    Attacks with one rate at 0 are left out; with both at 0 ε is 50. Where the narrower ensemble's
    range is below 1 % of the other's ε is 50 without an attack.

    Args:
      unlearned: outputs [m, n].
      retrained: outputs [m, n].

    Raises:
      ValueError: see `challenge_forgetting_quality`.
    """
    check_ensembles(unlearned, retrained)
    if len(unlearned) != len(retrained) or len(unlearned) < 3:
        raise ValueError(
            "the challenge compares as many unlearned as retrained networks, at least 3 each, got "
            f"{len(unlearned)} and {len(retrained)}; forgetting_quality takes other ensembles"
        )
    pairs = zip(
        np.asarray(unlearned, np.float64).T, np.asarray(retrained, np.float64).T, strict=True
    )
    epsilons = np.array([_epsilon(np.sort(one), np.sort(other)) for one, other in pairs])
    unknown = np.flatnonzero(np.isnan(epsilons))
    if unknown.size:
        raise ValueError(
            f"every attack of the challenge has a rate of 0 on forget example {unknown[0]} "
            f"({unknown.size} such examples): its outputs lie closer together than the thresholds, "
            "1/100; the public scorer stops here too, forgetting_quality does not"
        )
    return epsilons


def _epsilon(unlearned: np.ndarray, retrained: np.ndarray) -> float:
    """Returns ε of one example, NaN where no attack tells; both are sorted."""
    one, other = np.ptp(unlearned), np.ptp(retrained)
    if min(one, other) < PEAK * max(one, other):
        return LARGEST_EPSILON
    if np.median(retrained) > np.median(unlearned):
        positive, negative = retrained, unlearned
    else:
        positive, negative = unlearned, retrained
    single, double = _single(positive, negative), _double(positive, negative)
    false_positive, false_negative = (
        np.concatenate(both) for both in zip(single, double, strict=True)
    )
    if np.any((false_positive == 0) & (false_negative == 0)):
        return LARGEST_EPSILON
    known = (false_positive > 0) & (false_negative > 0)
    if not known.any():
        return float("nan")
    fpr, fnr = (wrong[known] / len(positive) for wrong in (false_positive, false_negative))
    likelihoods = np.concatenate([(1 - DELTA - fpr) / fnr, (1 - DELTA - fnr) / fpr, [1.0]])
    return min(float(np.log(likelihoods.max())), LARGEST_EPSILON)


def _single(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many outputs each threshold puts on the wrong side: negatives, positives."""
    low, high = min(positive[0], negative[0]), max(positive[-1], negative[-1])
    thresholds = np.linspace(low, high, int(np.ceil((high - low) * THRESHOLDS_PER_UNIT)))
    false_positive = len(negative) - np.searchsorted(negative, thresholds, side="left")
    return false_positive, np.searchsorted(positive, thresholds, side="left")


def _double(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same of each pair of thresholds, the narrower ensemble being the positives."""
    if np.ptp(positive) >= np.ptp(negative):
        positive, negative = negative, positive
    width = positive[-1] - positive[0]
    low, high = positive[0] + width - BUFFER, positive[-1] + BUFFER
    right = np.linspace(low, high, int(np.ceil((high - low) * THRESHOLDS_PER_UNIT)))
    lefts = int(np.ceil(2 * BUFFER * THRESHOLDS_PER_UNIT))
    left = np.linspace(right - width - BUFFER, right - width + BUFFER, lefts)
    inside = [
        np.maximum(
            np.searchsorted(values, right, side="right")
            - np.searchsorted(values, left, side="left"),
            0,
        ).ravel()
        for values in (positive, negative)
    ]
    return inside[1], len(positive) - inside[0]
