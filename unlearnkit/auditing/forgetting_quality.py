"""Forgetting quality, after the score of the NeurIPS 2023 unlearning challenge."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from unlearnkit.auditing.intervals import bounded_mean
from unlearnkit.auditing.klom import check_ensembles
from unlearnkit.base import Audited


def forgetting_quality(
    unlearned: Float[np.ndarray, "a n"],
    retrained: Float[np.ndarray, "b n"],
    *,
    delta: float = 0.0,
    bin_width: float = 0.5,
    bins: int = 13,
) -> Audited:
    """Returns how hard unlearned networks are to tell from retrained ones by the forget set.

    F = mean_s H(ε_s),   H(ε) = 2 / 2ⁿ,   n = min(⌊ε / bin_width⌋ + 1, bins)

    with ε_s of `example_epsilons`: 1 where no attack succeeds, half as much for every `bin_width`
    of ε more.

    This is our form, on every threshold that the ensembles tell apart, of which sizes may differ.
    It is more lenient than the published scorer: .047 against .026 where 64 unlearned networks'
    outputs are normal with half the spread of 64 retrained ones', .015 against .006 with a tenth.
    `challenge_forgetting_quality` is the published form and says what differs; a number that stands
    beside a published one must come from it.

    Args:
      unlearned: an output (the margin) of the n forget examples under each of a networks unlearned
        independently.
      retrained: the same under b networks retrained without the forget set.
      delta: δ of (ε, δ)-unlearning.
      bin_width: of ε, nats.
      bins: the last one takes all larger ε.

    Returns:
      Metrics: `forgetting_quality` over the examples with `forgetting_quality_se` and the 95 %
      interval `forgetting_quality_low`, `forgetting_quality_high`, see `bounded_mean`;
      `epsilon_median`. Curves: `epsilon` (infinite where one attack never errs) and `score` [n].

    Raises:
      ValueError: ensembles of different examples or of fewer than two networks, outputs that are
        not finite, or constants outside their range.

    Source: Triantafillou et al. 2024, Are we making progress in unlearning?
    """
    if not bin_width > 0 or bins < 1:
        raise ValueError(f"bin_width must be > 0 and bins >= 1, got {bin_width} and {bins}")
    epsilons = example_epsilons(unlearned, retrained, delta=delta)
    capped = np.minimum(epsilons, bin_width * bins)
    index = np.minimum(np.floor(capped / bin_width) + 1, bins)
    score = 2.0 ** (1 - index)
    metrics = bounded_mean("forgetting_quality", score)
    metrics["epsilon_median"] = float(np.median(epsilons))
    return Audited(metrics, {"epsilon": epsilons, "score": score})


def example_epsilons(
    unlearned: Float[np.ndarray, "a n"],
    retrained: Float[np.ndarray, "b n"],
    *,
    delta: float = 0.0,
) -> Float[np.ndarray, " n"]:
    """Returns the ε of each example that the best single-threshold attack shows.

    ε_s = max over attacks of max(0, log (1 - δ - FPR) / FNR, log (1 - δ - FNR) / FPR)

    An attack calls a network unlearned where its output of the example exceeds a threshold, or
    where it falls below it; FPR is the share of retrained networks called unlearned, FNR that of
    unlearned networks called retrained. Of an attack with one rate at 0 and the other not, ε
    cannot be estimated from a finite ensemble: it is left out. With both at 0 ε is infinite.

    Args:
      unlearned: outputs [a, n].
      retrained: outputs [b, n].
      delta: δ in [0, 1).

    Raises:
      ValueError: see `forgetting_quality`.
    """
    check_ensembles(unlearned, retrained)
    if not 0 <= delta < 1:
        raise ValueError(f"delta must be in [0, 1), got {delta}")
    pairs = zip(np.asarray(unlearned).T, np.asarray(retrained).T, strict=True)
    return np.array([_epsilon(one, other, delta) for one, other in pairs])


def _epsilon(unlearned: np.ndarray, retrained: np.ndarray, delta: float) -> float:
    thresholds = np.unique(np.concatenate([unlearned, retrained]))
    above = [
        1 - np.searchsorted(np.sort(values), thresholds, side="right") / len(values)
        for values in (retrained, unlearned)
    ]
    false_positive = np.concatenate([above[0], 1 - above[0]])
    false_negative = np.concatenate([1 - above[1], above[1]])
    if np.any((false_positive == 0) & (false_negative == 0)):
        return np.inf
    known = (false_positive > 0) & (false_negative > 0)
    fpr, fnr = false_positive[known], false_negative[known]
    likelihoods = np.concatenate([(1 - delta - fpr) / fnr, (1 - delta - fnr) / fpr, [1.0]])
    return float(np.log(likelihoods.max()))


def challenge_score(
    quality: float,
    *,
    retain: tuple[float, float],
    test: tuple[float, float],
) -> float:
    """Returns F · (RA_u / RA_r) · (TA_u / TA_r), the challenge's final score.

    Args:
      quality: F.
      retain: mean accuracy on the retain set of the unlearned and of the retrained networks.
      test: the same on the test set.

    Raises:
      ValueError: a retrained accuracy that is not > 0.
    """
    if not retain[1] > 0 or not test[1] > 0:
        raise ValueError(
            f"the retrained accuracies must be > 0, got {retain[1]} (retain) and {test[1]} (test)"
        )
    return quality * (retain[0] / retain[1]) * (test[0] / test[1])
