"""Solves the margin problem with a differentiable loss by Newton's method in d + 1 unknowns.

    min_z  f(z) = 1/2 sum_j r_j z_j^2 + sum_i c_i l(a_i.z),     a_i = y_i (x_i, 1).

A step costs one weighted Gram matrix, O(n d^2). The losses are the logistic, log(1 + exp(-m)), and
the squared hinge, max(0, 1 - m)^2, whose second derivative is that of its active set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from unlearnkit.kernels.active_set import stationarity_residual

MAX_STEPS = 100
"""Far more than the 5 to 20 steps that problems take; reached only when rounding stalls."""
_MAX_HALVINGS = 30


class MarginLoss(NamedTuple):
    """A loss of the margin m = y (w.x + b), its slope -l'(m), its curvature l''(m) and max l''."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    curvature: Callable[[Array], Array]
    greatest_curvature: float


LOGISTIC = MarginLoss(
    value=lambda m: jax.nn.softplus(-m),
    slope=lambda m: jax.nn.sigmoid(-m),
    curvature=lambda m: jax.nn.sigmoid(m) * jax.nn.sigmoid(-m),
    greatest_curvature=0.25,
)
SQUARED_HINGE = MarginLoss(
    value=lambda m: jnp.maximum(1 - m, 0) ** 2,
    slope=lambda m: jnp.where(m < 1, 2 * (1 - m), 0),
    curvature=lambda m: jnp.where(m < 1, 2.0, 0.0).astype(m.dtype),
    greatest_curvature=2.0,
)


class _State(NamedTuple):
    z: Float[Array, " k"]
    best: tuple[Float[Array, " k"], Float[Array, " n"]]
    residual: Float[Array, ""]
    stalled: Int[Array, ""]
    steps: Int[Array, ""]
    running: Bool[Array, ""]


def kkt_residual(
    loss: MarginLoss,
    rows: Float[Array, "n k"],
    c: Float[Array, " n"],
    ridge: Float[Array, " k"],
    z: Float[Array, " k"],
    alpha: Float[Array, " n"],
) -> Float[Array, ""]:
    """Returns the largest violation of R z = sum_i alpha_i a_i, alpha_i = -c_i l'(m_i).

    Each is relative to its terms; the second is in units of the margin (see `svm`).

    Args:
      loss: l, of a margin m_i = a_i·z.
      rows: [n, k] a_i, the signed examples with their bias.
      c: [n] weights of the losses; 0 leaves an example out.
      ridge: [k] the diagonal of R; 0 for a bias.
      z: [k] weights and bias.
      alpha: [n] multipliers.
    """
    scale = c * loss.greatest_curvature * (1 + jnp.abs(rows) @ jnp.abs(z))
    difference = jnp.abs(alpha - c * loss.slope(rows @ z))
    mismatch = jnp.max(jnp.where(c > 0, difference / jnp.where(c > 0, scale, 1), 0))
    return jnp.maximum(stationarity_residual(rows, ridge, z, alpha), mismatch)


def newton(
    loss: MarginLoss,
    rows: Float[Array, "n k"],
    c: Float[Array, " n"],
    ridge: Float[Array, " k"],
) -> tuple[Float[Array, " k"], Float[Array, " n"], Int[Array, ""]]:
    """Returns the minimiser z, the multipliers alpha = -c l'(m), and the number of Newton steps.

    The multipliers are those of the linearised loss at the last step, so that R z = sum alpha_i a_i
    holds to rounding even where 1 - m has few digits. It stops when the KKT residual is at
    rounding, or has not fallen for three steps of a gain below the rounding of the objective.

    Args:
      loss: l, of a margin m_i = a_i·z.
      rows: [n, k] a_i, the signed examples with their bias.
      c: [n] weights of the losses; 0 leaves an example out.
      ridge: [k] the diagonal of R; 0 for a bias.
    """
    rows = jnp.where((c > 0)[:, None], rows, 0)
    eps = jnp.finfo(c.dtype).eps

    def step(state: _State) -> _State:
        margins = rows @ state.z
        slope, curvature = c * loss.slope(margins), c * loss.curvature(margins)
        descent = rows.T @ slope - ridge * state.z
        hessian = (rows.T * curvature) @ rows + jnp.diag(ridge)
        direction = _symmetric_solve(hessian, descent)
        change = rows @ direction
        length = _line_search(loss, c, ridge, (state.z, margins), (direction, change))
        z = state.z + length * direction
        alpha = jnp.maximum(slope - length * curvature * change, 0)
        now = kkt_residual(loss, rows, c, ridge, z, alpha)
        better = now < state.residual
        value = jnp.sum(ridge * state.z**2) / 2 + c @ loss.value(margins)
        futile = ~(descent @ direction > 8 * eps * value)
        stalled = jnp.where(better, 0, state.stalled + futile)
        steps = state.steps + 1
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), (z, alpha), state.best)
        running = (now > jnp.maximum(eps, 1e-15)) & (stalled < 3) & (steps < MAX_STEPS)
        return _State(z, best, jnp.where(better, now, state.residual), stalled, steps, running)

    z, zero = jnp.zeros_like(ridge), jnp.asarray(0)
    first = (z, c * loss.slope(rows @ z))
    start = _State(z, first, jnp.asarray(jnp.inf, c.dtype), zero, zero, jnp.any(c > 0))
    end = jax.lax.while_loop(lambda state: state.running, step, start)
    return *end.best, end.steps


def _symmetric_solve(matrix: Array, rhs: Array) -> Array:
    """Solves with unit diagonal; the shift matters only where the bias has no curvature left."""
    diagonal = jnp.diag(matrix)
    scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    shift = 2 * jnp.finfo(matrix.dtype).eps * jnp.eye(len(scale), dtype=matrix.dtype)
    factor = jnp.linalg.cholesky(matrix / scale[:, None] / scale[None, :] + shift)
    return jax.scipy.linalg.cho_solve((factor, True), rhs / scale) / scale


def _line_search(
    loss: MarginLoss,
    c: Array,
    ridge: Array,
    here: tuple[Array, Array],
    ahead: tuple[Array, Array],
) -> Array:
    """Halves the step until the objective falls enough; `here` and `ahead` are of z and margins.

    Near the minimum the fall is below the rounding of the objective; a slope that has lessened
    then stands for it (the approximate Wolfe condition of Hager and Zhang).
    """
    (z, margins), (direction, change) = here, ahead

    def along(length: Array) -> tuple[Array, Array]:
        m, at = margins + length * change, z + length * direction
        value = jnp.sum(ridge * at**2) / 2 + c @ loss.value(m)
        return value, (ridge * at) @ direction - (c * loss.slope(m)) @ change

    value, slope = along(jnp.zeros((), z.dtype))
    slack = 8 * jnp.finfo(z.dtype).eps * jnp.abs(value)

    def rejected(carry: tuple[Array, Array]) -> Array:
        length, halvings = carry
        new_value, new_slope = along(length)
        enough = new_value <= value + 1e-4 * length * slope
        flat = (jnp.abs(new_slope) <= 0.9 * jnp.abs(slope)) & (new_value <= value + slack)
        return ~(enough | flat) & (halvings < _MAX_HALVINGS)

    start = (jnp.ones((), z.dtype), jnp.asarray(0))
    return jax.lax.while_loop(rejected, lambda carry: (carry[0] / 2, carry[1] + 1), start)[0]


def implicit_tangents(
    loss: MarginLoss,
    primals: tuple[Array, Array, Array],
    tangents: tuple[Array, Array, Array],
    z: Float[Array, " k"],
) -> tuple[Float[Array, " k"], Float[Array, " n"]]:
    """Returns the tangents of the minimiser, dz = -H^-1 d(grad f), and of its multipliers.

    Args:
      loss: the differentiable loss.
      primals: rows, c and ridge.
      tangents: their tangents; the result is linear in them.
      z: the minimiser.
    """
    rows, c, ridge = primals

    def gradient(rows: Array, c: Array, ridge: Array) -> Array:
        return ridge * z - rows.T @ (c * loss.slope(rows @ z))

    _, d_gradient = jax.jvp(gradient, primals, tangents)
    hessian = (rows.T * (c * loss.curvature(rows @ z))) @ rows + jnp.diag(ridge)
    dz = _symmetric_solve(hessian, -d_gradient)
    _, d_alpha = jax.jvp(
        lambda rows, c, z: c * loss.slope(rows @ z), (rows, c, z), (*tangents[:2], dz)
    )
    return dz, d_alpha
