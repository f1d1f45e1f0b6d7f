"""KL divergence of margins between unlearned and retrained networks (KLoM)."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float

from unlearnkit.auditing.intervals import bounded_mean
from unlearnkit.base import Audited
from unlearnkit.validation import InputWarning

CLIP = 100.0


def klom(
    unlearned: Float[np.ndarray, "a n"],
    retrained: Float[np.ndarray, "b n"],
    *,
    bins: int = 20,
    smoothing: float = 1e-5,
) -> Audited:
    """Returns how far the margins of unlearned networks are from those of retrained ones.

    For each example, KL(P ‖ Q) = Σ_k p_k log p_k / q_k in nats, where P and Q are the histograms
    of its margin z_y - logsumexp_{c≠y} z_c over the two ensembles, on equal bins between the least
    and the largest margin of both. Finite ensembles of one distribution have a KLoM above 0: that
    of two retrained ensembles is the floor to compare with.

    Args:
      unlearned: margins of n examples under each of a networks unlearned independently.
      retrained: the same under b networks retrained without the forget set.
      bins: of each example's histograms.
      smoothing: added to every bin's share; shares are then normalised again.

    Returns:
      Metrics: `klom_mean` over the examples with `klom_mean_se` and the 95 % interval
      `klom_mean_low`, `klom_mean_high`, see `bounded_mean`: a KLoM is at most log(1 + 1 /
      smoothing); `klom_95`, the 95th percentile.
      Curve: `klom` [n].

    Raises:
      ValueError: ensembles of different examples or of fewer than two networks, or margins that
        are not finite.

    Source: Rinberg et al. 2025, data-unlearning-bench (20 bins, margins clipped to ±100). Its
    public code gives other numbers. Its histograms leave out the largest margin of both ensembles,
    which lies on the last edge, and are NaN for an example where all margins of one ensemble are
    that largest one, as where all are clipped. It does not smooth P, and lifts an empty bin of Q to
    1e-5 only where P is not empty. It needs as many unlearned as retrained networks.
    """
    check_ensembles(unlearned, retrained)
    if bins < 2 or not smoothing > 0:
        raise ValueError(f"bins must be >= 2 and smoothing > 0, got {bins} and {smoothing}")
    one, other = (np.clip(np.asarray(m, np.float64), -CLIP, CLIP) for m in (unlearned, retrained))
    low = np.minimum(one.min(0), other.min(0))
    width = np.maximum(one.max(0), other.max(0)) - low
    p, q = (_histograms(m, low, width, bins) + smoothing for m in (one, other))
    p, q = (shares / shares.sum(axis=0) for shares in (p, q))
    divergence = np.sum(p * np.log(p / q), axis=0)
    divergence = divergence.clip(0)  # below by rounding alone
    most = max(float(np.log1p(1 / smoothing)), float(divergence.max()))
    metrics = bounded_mean("klom_mean", divergence, most=most)
    metrics["klom_95"] = float(np.percentile(divergence, 95))
    return Audited(metrics, {"klom": divergence})


def check_ensembles(unlearned: np.ndarray, retrained: np.ndarray) -> None:
    """Raises ValueError if the ensembles cannot be compared example by example.

    Raises:
      ValueError: see `klom`.

    Warns:
      InputWarning: an ensemble that is compared with itself.
    """
    for name, values in (("unlearned", unlearned), ("retrained", retrained)):
        if values.ndim != 2 or len(values) < 2 or values.shape[1] < 1:
            raise ValueError(
                f"{name} must be [networks >= 2, examples >= 1], got {list(values.shape)}"
            )
        if not np.all(np.isfinite(values)):
            raise ValueError(f"values of {name} must be finite; a network of it has diverged")
    if unlearned.shape[1] != retrained.shape[1]:
        raise ValueError(
            "unlearned and retrained must be of the same examples, "
            f"got {unlearned.shape[1]} and {retrained.shape[1]}"
        )
    theirs = {row.tobytes() for row in np.asarray(retrained)}
    if all(row.tobytes() in theirs for row in np.asarray(unlearned)):
        warnings.warn(
            "every unlearned network answers as one of the retrained does, to the last bit: the "
            "ensemble is compared with itself; give one of networks retrained by other keys",
            InputWarning,
            stacklevel=3,
        )


def _histograms(
    values: np.ndarray, low: np.ndarray, width: np.ndarray, bins: int
) -> Float[np.ndarray, "bins n"]:
    """Returns the share of each column's values in each of its bins."""
    scaled = (values - low) / np.where(width > 0, width, 1.0)
    index = np.minimum((bins * scaled).astype(int), bins - 1)
    return np.stack([np.mean(index == k, axis=0) for k in range(bins)])
