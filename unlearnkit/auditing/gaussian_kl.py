"""The divergence of two Gaussians."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def gaussian_kl(
    shift: Float[np.ndarray, " k"],
    covariance: Float[np.ndarray, "*s"],
    reference: Float[np.ndarray, "*s"],
) -> float:
    """Returns KL(N(μ, Σ) ‖ N(μ₀, Σ₀)) in nats.

    ½ [ΔᵀΣ₀⁻¹Δ + tr(ΣΣ₀⁻¹) - log|ΣΣ₀⁻¹| - k],   Δ = μ - μ₀

    Args:
      shift: Δ, [k].
      covariance: Σ, its diagonal [k] or whole [k, k].
      reference: Σ₀, likewise.

    Raises:
      ValueError: shapes that do not fit, or a covariance that is not positive definite: a
        Gaussian without width in some direction gives the other away, the divergence is infinite.

    Source: Golatkar et al. 2020b, proposition 1, which prints + log|ΣΣ₀⁻¹| for - log|ΣΣ₀⁻¹| (that
    form can be negative) and leaves the ½ out (a valid bound of twice the size).
    """
    delta = np.asarray(shift, np.float64)
    one, other = (np.asarray(sigma, np.float64) for sigma in (covariance, reference))
    k = delta.size
    if delta.shape != (k,) or {one.shape, other.shape} not in ({(k,)}, {(k, k)}):
        raise ValueError(
            "covariances must be both [k] or both [k, k] for a shift [k], "
            f"got {one.shape} and {other.shape} for {delta.shape}"
        )
    if one.ndim == 1:
        for variances in (one, other):
            _refuse_no_width(variances.min(), variances.max(), 0.0)
        ratio = one / other
        return float(0.5 * np.sum(delta**2 / other + ratio - np.log(ratio) - 1))
    lower, lower_0 = cholesky(one), cholesky(other)
    whitened = np.linalg.solve(lower_0, np.column_stack([delta, lower]))
    log_ratio = 2 * np.sum(np.log(np.diag(lower)) - np.log(np.diag(lower_0)))
    # The first column is Σ₀^(-½) Δ, the others make tr(Σ Σ₀⁻¹) by their squares.
    return float(0.5 * (np.sum(whitened**2) - log_ratio - k))


def cholesky(sigma: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """Returns the lower L with L Lᵀ = sigma, which is not singular up to rounding.

    Raises:
      ValueError: not positive definite.
    """
    values = np.linalg.eigvalsh(sigma)
    rounding = np.finfo(np.float64).eps * len(sigma) * values[-1]
    _refuse_no_width(values[0], values[-1], max(rounding, 0.0))
    return np.linalg.cholesky(sigma)


def _refuse_no_width(least: float, most: float, rounding: float) -> None:
    if least > rounding:
        return
    raise ValueError(
        f"a covariance must be positive definite, got a variance of {least:.3g} in some direction "
        f"({most:.3g} in another): the divergence is infinite or lost in rounding; "
        "add noise everywhere, ask fewer queries, or pass damping > 0"
    )
