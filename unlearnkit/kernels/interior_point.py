"""Solves the hinge-loss margin problem by a primal-dual interior-point method in d + 1 unknowns.

The problem of this file and of `active_set`, with signed rows a_i = y_i (x_i, 1):

    min_z  1/2 sum_j r_j z_j^2 + sum_i c_i max(0, 1 - a_i.z),       0 <= c_i <= 1.

The slacks of every example are eliminated, so that a step costs one weighted Gram matrix of the
rows, O(n d^2), and one Cholesky factor of d + 1 unknowns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MAX_STEPS = 80
"""Far more than the 10 to 25 steps that problems take; reached only when rounding stalls."""
_FRACTION_TO_BOUNDARY = 0.99


class Iterate(NamedTuple):
    """A point of the interior: z, and per example two pairs whose products tend to zero.

    Attributes:
      z: weights, then bias.
      alpha: multiplier of a.z >= 1 - excess, in (0, c).
      beta: c - alpha, carried on its own because the difference loses its digits near the bound.
      slack: a.z - 1 + excess, the partner of alpha.
      excess: the hinge loss, the partner of beta.
    """

    z: Float[Array, " k"]
    alpha: Float[Array, " n"]
    beta: Float[Array, " n"]
    slack: Float[Array, " n"]
    excess: Float[Array, " n"]


class _State(NamedTuple):
    point: Iterate
    best: Iterate
    merit: Float[Array, ""]
    gap: Float[Array, ""]
    stalled: Int[Array, ""]
    steps: Int[Array, ""]
    running: Bool[Array, ""]


def interior_point(
    rows: Float[Array, "n k"], c: Float[Array, " n"], ridge: Float[Array, " k"]
) -> tuple[Iterate, Int[Array, ""]]:
    """Returns the best point of Mehrotra's predictor-corrector method and its number of steps.

    The best is that of least merit, the greater of the relative gap and the relative dual residual.
    It stops when the merit is at rounding or when neither it nor the gap has fallen for three
    steps: beyond, a float32 iteration only loses digits.

    Args:
      rows: signed examples y (x, 1), best centred and of norm near 1.
      c: weight of every example; rows of weight 0 are left out.
      ridge: coefficients r of the quadratic term; 0 for the bias.
    """
    active = c > 0
    rows = jnp.where(active[:, None], rows, 0)
    c = jnp.where(active, c, 1)
    one = jnp.ones_like(c)
    tolerance = jnp.maximum(2 * jnp.finfo(c.dtype).eps, 1e-13)

    def step(state: _State) -> _State:
        point = _mehrotra_step(rows, c, ridge, active, state.point)
        merit = _merit(rows, c, ridge, active, point)
        better = merit < state.merit
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), point, state.best)
        # On the way to feasibility the merit may rise while the gap still closes.
        gap = _complementarity(point, active)
        stalled = jnp.where(better | (gap < state.gap), 0, state.stalled + 1)
        steps = state.steps + 1
        running = (merit > tolerance) & (stalled < 3) & (steps < MAX_STEPS)
        least = jnp.where(better, merit, state.merit)
        return _State(point, best, least, jnp.minimum(gap, state.gap), stalled, steps, running)

    start = Iterate(jnp.zeros_like(ridge), c / 2, c / 2, one, 2 * one)
    zero, most = jnp.asarray(0), jnp.asarray(jnp.inf, c.dtype)
    state = _State(start, start, most, most, zero, zero, jnp.any(active))
    state = jax.lax.while_loop(lambda state: state.running, step, state)
    return state.best, state.steps


def _mehrotra_step(rows: Array, c: Array, ridge: Array, active: Array, point: Iterate) -> Iterate:
    """Predicts with the pure Newton direction, then recentres and corrects for its curvature."""
    _, alpha, beta, slack, excess = point
    tiny = jnp.finfo(c.dtype).tiny
    solve = _newton_directions(rows, c, ridge, active, point)
    predicted = solve(-alpha * slack, -beta * excess)
    length = jnp.minimum(1, _longest_step(point, predicted, active))
    now = _complementarity(point, active)
    then = _complementarity(_move(point, predicted, length), active)
    target = (then / jnp.maximum(now, tiny)) ** 3 * now
    target = target / (2 * jnp.maximum(jnp.sum(active), 1))
    corrected = solve(
        target - alpha * slack - predicted.alpha * predicted.slack,
        target - beta * excess - predicted.beta * predicted.excess,
    )
    length = _FRACTION_TO_BOUNDARY * _longest_step(point, corrected, active)
    return _move(point, corrected, jnp.minimum(1, length))


def _newton_directions(
    rows: Array, c: Array, ridge: Array, active: Array, point: Iterate
) -> Callable[[Array, Array], Iterate]:
    """Returns the map from right-hand sides of the two complementarities to Newton directions."""
    z, alpha, beta, slack, excess = point
    theta = jnp.where(active, 1 / (slack / alpha + excess / beta), 0)
    dual_residual = rows.T @ jnp.where(active, alpha, 0) - ridge * z
    primal_residual = rows @ z + excess - 1 - slack
    box_residual = c - alpha - beta
    schur = (rows.T * theta) @ rows + jnp.diag(ridge)
    factor, scale = _scaled_cholesky(schur)

    def solve(alpha_target: Array, beta_target: Array) -> Iterate:
        beta_part = (beta_target - excess * box_residual) / beta
        shift = primal_residual - alpha_target / alpha + beta_part
        rhs = dual_residual - rows.T @ (theta * shift)
        dz = jax.scipy.linalg.cho_solve((factor, True), rhs / scale) / scale
        d_alpha = -theta * (rows @ dz + shift)
        d_beta = box_residual - d_alpha
        d_slack = (alpha_target - slack * d_alpha) / alpha
        d_excess = (beta_target - excess * d_beta) / beta
        return Iterate(dz, *(jnp.where(active, v, 0) for v in (d_alpha, d_beta, d_slack, d_excess)))

    return solve


def _scaled_cholesky(matrix: Array) -> tuple[Array, Array]:
    """Factors S^-1 M S^-1 + 4 eps I with S = sqrt(diag M).

    The shift keeps the factor real where M is singular to rounding; the residuals of the next
    step are computed anew, so it slows the last digits and never biases them.
    """
    eps = jnp.finfo(matrix.dtype).eps
    diagonal = jnp.diag(matrix)
    scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    unit = matrix / scale[:, None] / scale[None, :]
    return jnp.linalg.cholesky(unit + 4 * eps * jnp.eye(len(scale), dtype=matrix.dtype)), scale


def _longest_step(point: Iterate, direction: Iterate, active: Array) -> Array:
    value, change = jnp.stack(point[1:]), jnp.stack(direction[1:])
    shrinks = active & (change < 0)
    return jnp.min(jnp.where(shrinks, -value / jnp.where(shrinks, change, -1), jnp.inf))


def _move(point: Iterate, direction: Iterate, length: Array) -> Iterate:
    return Iterate(*(v + length * d for v, d in zip(point, direction, strict=True)))


def _complementarity(point: Iterate, active: Array) -> Array:
    products = point.alpha * point.slack + point.beta * point.excess
    return jnp.sum(jnp.where(active, products, 0))


def _merit(rows: Array, c: Array, ridge: Array, active: Array, point: Iterate) -> Array:
    """The relative duality gap, or sqrt(eps) of the relative dual residual where that is more.

    The dual residual needs half the digits only: the active set solves stationarity anew. NaN where
    the point is not finite, which compares as no improvement.
    """
    eps = jnp.finfo(c.dtype).eps
    objective = jnp.sum(ridge * point.z**2) / 2 + jnp.sum(jnp.where(active, c * point.excess, 0))
    alpha = jnp.where(active, point.alpha, 0)
    dual_residual = jnp.max(jnp.abs(rows.T @ alpha - ridge * point.z)) / jnp.sum(alpha)
    return jnp.maximum(_complementarity(point, active) / objective, jnp.sqrt(eps) * dual_residual)
