"""Linear classifiers on standardised features, many at once: the folds of a membership attack."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float
from scipy.special import expit

AttackerName: TypeAlias = Literal["logistic", "svm"]

MOST_NUMBERS = 2**22
"""Features of problems that are solved side by side."""
_MOST_STEPS = 100
_MOST_HALVINGS = 40
_NEAR = 1e-10
"""A decrease that a step promises, relative to the objective, after which it is the last."""


def decide(
    x: Float[np.ndarray, "n d"],
    y: np.ndarray,
    weights: Float[np.ndarray, "k n"],
    *,
    attacker: AttackerName,
    C: float,
) -> Float[np.ndarray, "k n"]:
    """Returns the decisions on all examples of k classifiers, each trained on its own weights.

    A classifier minimises ½ ‖w‖² + C Σ_i weight_i l(s_i (w·z_i + b)) over w and b, where s is 1 for
    members and -1 for others, z the features, standardised to weighted mean 0 and variance 1, and
    l(m) = log(1 + exp(-m)) for `logistic` and max(0, 1 - m)² for `svm`, which penalises ½ b² too,
    as LIBLINEAR does. The problems are solved side by side by Newton's method, to rounding; an
    example of weight 0 is not seen.

    Args:
      x: features.
      y: true for members; [n] for all problems or [k, n].
      weights: of the examples, at least one member and one other of weight > 0 in each problem.
      attacker: which loss.
      C: inverse strength of the penalty.
    """
    signs = np.broadcast_to(np.where(y, 1.0, -1.0), weights.shape)
    at_once = max(1, MOST_NUMBERS // (x.shape[0] * (x.shape[1] + 1)))
    parts = [slice(i, i + at_once) for i in range(0, len(weights), at_once)]
    found = [_decide_few(x, signs[part], weights[part], attacker, C) for part in parts]
    return np.concatenate(found)


def _decide_few(
    x: np.ndarray, signs: np.ndarray, weights: np.ndarray, attacker: AttackerName, C: float
) -> np.ndarray:
    z = _standardise(x, weights)
    penalty = np.ones(z.shape[-1])
    if attacker == "logistic":
        penalty[-1] = 0
    C_weights = C * weights

    def objective(margins: np.ndarray, at: np.ndarray) -> np.ndarray:
        losses = C_weights * _losses(attacker, margins)
        total: np.ndarray = losses.sum(1) + (penalty * at**2).sum(1) / 2
        return total

    at, margins = np.zeros((len(z), z.shape[-1])), np.zeros(weights.shape)
    value = objective(margins, at)
    for _ in range(_MOST_STEPS):
        slopes, bends = _derivatives(attacker, margins)
        gradient = np.einsum("kn,knd->kd", C_weights * slopes * signs, z) + penalty * at
        hessian = np.einsum("kn,knd,kne->kde", C_weights * bends, z, z, optimize=True)
        hessian += np.diag(penalty)
        # Where no example bends the loss, rounding leaves the intercept no curvature.
        ridge = 1e-12 * np.trace(hessian, axis1=1, axis2=2)[:, None, None] * np.eye(len(penalty))
        step = -np.linalg.solve(hessian + ridge, gradient[..., None])[..., 0]
        moved = signs * np.einsum("knd,kd->kn", z, step)
        promised = -(gradient * step).sum(1)
        share = np.ones(len(z))
        far = promised > _NEAR * value  # nearer, the whole step squares the error
        for _ in range(_MOST_HALVINGS):
            trial = objective(margins + share[:, None] * moved, at + share[:, None] * step)
            short = far & (trial > value - 1e-4 * share * promised)
            if not short.any():
                break
            share[short] /= 2
        at, margins, value = at + share[:, None] * step, margins + share[:, None] * moved, trial
        if not far.any():
            break
    decisions: np.ndarray = np.einsum("knd,kd->kn", z, at)
    return decisions


def _standardise(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the features of each problem [k, n, d + 1], the last of which is 1."""
    total = weights.sum(1)[:, None]
    x = x - x.mean(0)
    mean = weights @ x / total
    centred = x - mean[:, None]
    variance = np.einsum("kn,knd->kd", weights, centred**2) / total
    # Rounding of a constant feature is no spread.
    constant = variance <= (10 * np.finfo(float).eps) ** 2 * (1 + np.abs(x).max(0) ** 2)
    scaled = centred / np.sqrt(np.where(constant, 1, variance))[:, None]
    return np.concatenate([scaled, np.ones((*scaled.shape[:2], 1))], axis=-1)


def _losses(attacker: AttackerName, margins: np.ndarray) -> np.ndarray:
    if attacker == "logistic":
        found: np.ndarray = np.logaddexp(0, -margins)
    else:
        found = np.maximum(0, 1 - margins) ** 2
    return found


def _derivatives(attacker: AttackerName, margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first two derivatives of the losses."""
    if attacker == "logistic":
        below = expit(-margins)
        return -below, below * (1 - below)
    short = np.maximum(0, 1 - margins)
    return -2 * short, 2.0 * (short > 0)
