"""Brings a hinge-loss solution to rounding by solving on its margin, and differentiates it there.

At a solution of the margin problem (see `interior_point`) every example is inside the margin
(a.z < 1, alpha = c), outside (a.z > 1, alpha = 0) or on it. On the margin only a basis of linearly
independent rows, at most d + 1, has multipliers to solve for, so all systems here are of 2 (d + 1)
unknowns:

    R z = sum_i alpha_i a_i,        a_i.z = 1 for i in the basis.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from unlearnkit.kernels.interior_point import Iterate

MAX_PIVOTS = 30
"""A few changes of the active set repair what the interior point could not tell apart."""
_MAX_STALLED = 6


class Basis(NamedTuple):
    """Linearly independent rows that pin the solution down.

    Attributes:
      rows: [m, k] signed rows, zero where not valid; m = min(n, k).
      target: what rows @ z must be, 1 for examples on the margin.
      examples: which they are.
      valid: which of the m places are taken.
      is_margin: False for the one row that fixes the bias when no example is on the margin; it has
        no multiplier.
      ends: the two examples that end the interval of such a bias.
    """

    rows: Float[Array, "m k"]
    target: Float[Array, " m"]
    examples: Int[Array, " m"]
    valid: Bool[Array, " m"]
    is_margin: Bool[Array, ""]
    ends: Int[Array, " 2"]


class _Polished(NamedTuple):
    z: Float[Array, " k"]
    alpha: Float[Array, " n"]
    residual: Float[Array, ""]
    rank: Int[Array, ""]


class _Search(NamedTuple):
    best: _Polished
    alpha: Float[Array, " n"]
    on_margin: Bool[Array, " n"]
    priority: Float[Array, " n"]
    stalled: Int[Array, ""]
    pivots: Int[Array, ""]
    running: Bool[Array, ""]


def kkt_residual(
    rows: Float[Array, "n k"],
    c: Float[Array, " n"],
    ridge: Float[Array, " k"],
    z: Float[Array, " k"],
    alpha: Float[Array, " n"],
) -> Float[Array, ""]:
    """Returns the largest violation of the hinge problem's optimality, relative to its terms.

    The greater of stationarity, see `stationarity_residual`, and complementarity,
    |u - clip(u - g, 0, c / max alpha)| with u = alpha / max alpha and g = (a.z - 1) over the sum of
    the moduli of its terms. Neither depends on the units of the features, of the weights or of C.

    Args:
      rows: [n, k] a_i, the signed examples with their bias.
      c: [n] the greatest multipliers; 0 leaves an example out.
      ridge: [k] r, the weights' regularisation; 0 for a bias.
      z: [k] weights and bias.
      alpha: [n] multipliers.
    """
    stationarity = stationarity_residual(rows, ridge, z, alpha)
    largest = jnp.max(alpha)
    unit = jnp.where(largest > 0, largest, 1)
    gap = (rows @ z - 1) / (1 + jnp.abs(rows) @ jnp.abs(z))
    natural = jnp.abs(alpha / unit - jnp.clip(alpha / unit - gap, 0, c / unit))
    return jnp.maximum(stationarity, jnp.max(jnp.where(c > 0, natural, 0)))


def reaches_bound(alpha: Float[Array, " n"], c: Float[Array, " n"]) -> Bool[Array, " n"]:
    """Returns which multipliers are at their upper bound.

    Not alpha == c: a compiler may divide c by a common factor here and multiply by its inverse
    there, and an example inside the margin would be taken for one on it.
    """
    return (c > 0) & (alpha >= c * (1 - 8 * jnp.finfo(c.dtype).eps))


def stationarity_residual(rows: Array, ridge: Array, z: Array, alpha: Array) -> Array:
    """Returns max_j |r_j z_j - sum_i alpha_i a_ij| / (r_j |z_j| + max_i |a_ij| sum_i alpha_i).

    The largest value of a feature is its unit, not those that alpha_i weighs: a feature that is 0
    in every support vector, as most pixels at the edge are, has a weight of rounding alone.

    Args:
      rows: [n, k] a_i, the signed examples with their bias.
      ridge: [k] r.
      z: [k] weights and bias.
      alpha: [n] multipliers.
    """
    difference = jnp.abs(ridge * z - rows.T @ alpha)
    terms = ridge * jnp.abs(z) + jnp.max(jnp.abs(rows), axis=0) * jnp.sum(alpha)
    return jnp.max(jnp.where(difference > 0, difference / terms, 0))


def polish(
    rows: Float[Array, "n k"], c: Float[Array, " n"], ridge: Float[Array, " k"], point: Iterate
) -> tuple[Float[Array, " k"], Float[Array, " n"], Int[Array, ""], Int[Array, ""]]:
    """Returns z, alpha, the rank of the margin and the number of systems solved.

    It starts from a point near the solution.

    Of all active sets tried, the one of least KKT residual is kept.

    Args:
      rows: [n, k] the signed examples with their bias.
      c: [n] the greatest multipliers; 0 leaves an example out.
      ridge: [k] the weights' regularisation; 0 for a bias.
      point: where the interior point method ended.
    """
    active = c > 0
    rows = jnp.where(active[:, None], rows, 0)
    # In units of the largest multiplier: for a separable problem all are far below c.
    interior = jnp.minimum(point.alpha, point.beta)
    interior /= jnp.max(jnp.where(active, point.alpha, jnp.finfo(c.dtype).tiny))
    scale = 1 + jnp.abs(rows) @ jnp.abs(point.z)
    on_margin = active & (interior > jnp.maximum(point.slack, point.excess) / scale)
    alpha = jnp.where(on_margin, point.alpha, jnp.where(point.excess > point.slack, c, 0))
    alpha = jnp.where(active, jnp.clip(alpha, 0, c), 0)
    start_residual = kkt_residual(rows, c, ridge, point.z, alpha)
    first = _Polished(point.z, alpha, start_residual, jnp.sum(on_margin))
    eps = jnp.finfo(rows.dtype).eps
    target = jnp.maximum(3 * eps, 1e-14)

    def pivot(search: _Search) -> _Search:
        basis = choose_basis(rows, search.on_margin, search.priority, search.best.z, search.alpha)
        z, alpha = _solve_on_basis(rows, ridge, basis, search.alpha)
        inside = (alpha >= 0) & (alpha <= c)
        clipped = jnp.clip(alpha, 0, c)
        rank = jnp.sum(basis.valid & basis.is_margin)
        now = _Polished(z, clipped, kkt_residual(rows, c, ridge, z, clipped), rank)
        # Of points at rounding the one with multipliers of exactly 0 or c off the basis is wanted.
        better = (now.residual < search.best.residual) | (now.residual <= target)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, search.best)

        gap = (rows @ z - 1) / (1 + jnp.abs(rows) @ jnp.abs(z))
        in_basis = jnp.zeros(len(c), bool).at[basis.examples].max(basis.valid & basis.is_margin)
        kept = in_basis & inside & (clipped > 0) & (clipped < c)
        # An example on the margin but not in the basis is a copy of those that are; if it has
        # moved off, it was none, and goes to its side.
        frozen = search.on_margin & ~in_basis & (jnp.abs(gap) <= 8 * eps)
        strayed = search.on_margin & ~in_basis & ~frozen
        crossed = active & ~search.on_margin
        crossed &= ((clipped == 0) & (gap < -target)) | ((clipped > 0) & (gap > target))
        next_alpha = jnp.where(strayed, jnp.where(gap > 0, 0, c), clipped)
        priority = jnp.where(crossed, jnp.sqrt(jnp.abs(gap)), 1)
        pivots = search.pivots + 1
        stalled = jnp.where(better, 0, search.stalled + 1)
        running = (now.residual > target) & (pivots < MAX_PIVOTS) & (stalled < _MAX_STALLED)
        on_margin = kept | frozen | crossed
        return _Search(best, next_alpha, on_margin, priority, stalled, pivots, running)

    running = jnp.any(active) & jnp.isfinite(start_residual)
    zero = jnp.asarray(0)
    start = _Search(first, alpha, on_margin, interior, zero, zero, running)
    end = jax.lax.while_loop(lambda search: search.running, pivot, start)
    return end.best.z, end.best.alpha, end.best.rank, end.pivots


def choose_basis(
    rows: Float[Array, "n k"],
    on_margin: Bool[Array, " n"],
    priority: Float[Array, " n"],
    z: Float[Array, " k"],
    alpha: Float[Array, " n"],
) -> Basis:
    """Returns linearly independent rows of the margin by pivoted Gram-Schmidt, O(n d^2).

    With no example on the margin the weights do not depend on the bias; the basis is then one row
    that puts the bias in the middle of its interval.

    Args:
      rows: [n, k] the signed examples with their bias.
      on_margin: [n] the examples to choose from.
      priority: [n] the larger, the earlier an example is chosen.
      z: [k] weights and bias.
      alpha: [n] multipliers.
    """
    n, k = rows.shape
    size = min(n, k)
    # Below this relative norm what is left of a row is rounding.
    cutoff = 10 * k * jnp.finfo(rows.dtype).eps
    norms = jnp.sqrt(jnp.sum(rows**2, axis=1))
    priority = jnp.where(on_margin, priority, 0)

    def pick(step: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rest, index, valid = carry
        length = jnp.sqrt(jnp.sum(rest**2, axis=1))
        independent = on_margin & (length > cutoff * norms)
        chosen = jnp.argmax(jnp.where(independent, priority * length, -1))
        taken = independent[chosen]
        unit = rest[chosen] / jnp.where(taken, length[chosen], 1)
        rest = jnp.where(taken, rest - jnp.outer(rest @ unit, unit), rest)
        rest = rest.at[chosen].multiply(jnp.where(taken, 0, 1))
        return rest, index.at[step].set(chosen), valid.at[step].set(taken)

    empty = (jnp.where(on_margin[:, None], rows, 0), jnp.zeros(size, int), jnp.zeros(size, bool))
    _, index, valid = jax.lax.fori_loop(0, size, pick, empty)
    is_margin = jnp.any(valid)
    ends = _interval_ends(rows, z, alpha)
    valid = valid.at[0].set(True)
    basis = Basis(rows[:0], jnp.ones(0), index, valid, is_margin, ends)
    return _with_rows(basis, rows)


def bias_interval(
    rows: Float[Array, "n k"], z: Float[Array, " k"], alpha: Float[Array, " n"]
) -> Float[Array, " 2"]:
    """Returns the least and the greatest bias that are optimal with the weights in z.

    Both are the bias itself where an example with 0 < alpha < c pins it down. An end is infinite
    where no example bounds it.

    Args:
      rows: [n, k] the signed examples with their bias.
      z: [k] weights and bias.
      alpha: [n] multipliers.
    """
    lower, upper = _bias_bounds(rows, z, alpha)
    return jnp.stack([jnp.max(lower), jnp.min(upper)])


def _bias_bounds(rows: Array, z: Array, alpha: Array) -> tuple[Array, Array]:
    """Per example, the bias at which it is on the margin: as a lower and as an upper bound.

    More bias pushes positive examples outwards and negative ones inwards.
    """
    label = rows[:, -1]
    bias = z[-1] + label * (1 - rows @ z)
    outside = alpha == 0
    below = jnp.where(outside, label > 0, label < 0)
    above = jnp.where(outside, label < 0, label > 0)
    return jnp.where(below, bias, -jnp.inf), jnp.where(above, bias, jnp.inf)


def _interval_ends(rows: Array, z: Array, alpha: Array) -> Array:
    """The examples that bound the bias; twice the same where it is bounded on one side only."""
    lower, upper = _bias_bounds(rows, z, alpha)
    low, high = jnp.argmax(lower), jnp.argmin(upper)
    low = jnp.where(jnp.isfinite(lower[low]), low, high)
    high = jnp.where(jnp.isfinite(upper[high]), high, low)
    return jnp.stack([low, high])


def _with_rows(basis: Basis, rows: Array) -> Basis:
    """Fills in the rows and targets of the chosen examples: linear in `rows`."""
    ends, label = rows[basis.ends], jnp.sign(rows[basis.ends, -1])
    middle = jnp.mean(label[:, None] * ends, axis=0)
    any_end = jnp.any(label != 0)
    middle = jnp.where(any_end, middle, jnp.zeros_like(middle).at[-1].set(1))
    first = jnp.arange(len(basis.examples)) == 0
    is_bias_row = first & ~basis.is_margin
    chosen = jnp.where(is_bias_row[:, None], middle, rows[basis.examples])
    target = jnp.where(is_bias_row, jnp.mean(label), jnp.ones_like(first, rows.dtype))
    return basis._replace(
        rows=jnp.where(basis.valid[:, None], chosen, 0),
        target=jnp.where(basis.valid, target, 0),
    )


def _saddle_solve(
    ridge: Array, basis: Basis, stationarity: Array, feasibility: Array
) -> tuple[Array, Array]:
    """Solves R z - B'u = stationarity, B z = feasibility, for z and the multipliers u.

    Where the ridge is large, for a small C, the weights are small; they are solved for in units in
    which they are not. Two steps of refinement leave every equation at its own rounding.
    """
    k, m = len(ridge), len(basis.examples)
    unit = 1 / jnp.maximum(jnp.concatenate([ridge, jnp.zeros(m, ridge.dtype)]), 1)
    corner = jnp.where(basis.valid, 0, jnp.ones(m, ridge.dtype))
    top = jnp.concatenate([jnp.diag(ridge), -basis.rows.T], axis=1)
    bottom = jnp.concatenate([basis.rows, jnp.diag(corner)], axis=1)
    matrix = jnp.concatenate([top, bottom]) * unit
    rhs = jnp.concatenate([stationarity, feasibility])
    lu, _, order = jax.lax.linalg.lu(matrix)

    def solve(rhs: Array) -> Array:
        lower = jax.scipy.linalg.solve_triangular(lu, rhs[order], lower=True, unit_diagonal=True)
        return jax.scipy.linalg.solve_triangular(lu, lower)

    solution = solve(rhs)
    for _ in range(2):
        solution += solve(rhs - matrix @ solution)
    solution *= unit
    return solution[:k], solution[k:]


def _scatter(basis: Basis, values: Array, others: Array) -> Array:
    """Returns `others` with the entries of the basis replaced by `values`."""
    own = basis.valid & basis.is_margin
    mask = jnp.zeros(others.shape, bool).at[basis.examples].max(own)
    return jnp.where(mask, 0, others).at[basis.examples].add(jnp.where(own, values, 0))


def _exact_sum(terms: Array) -> Array:
    """Sums over the first axis by halves with the rounding of every addition carried along."""
    total, error = terms, jnp.zeros_like(terms)
    while (n := len(total)) > 1:
        if n % 2:
            total, error = (jnp.pad(v, ((0, 1), (0, 0))) for v in (total, error))
        left, right = jnp.split(total, 2)
        total = left + right
        share = total - left
        lost = (left - (total - share)) + (right - share)
        error = sum(jnp.split(error, 2)) + lost
    return total[0] + error[0]


def _solve_on_basis(rows: Array, ridge: Array, basis: Basis, alpha: Array) -> tuple[Array, Array]:
    fixed = _scatter(basis, jnp.zeros_like(basis.target), alpha)
    # Some thousand terms at the bound C cancel against the few multipliers solved for: a plain sum
    # in float32 would leave these with two digits.
    pull = _exact_sum(rows * fixed[:, None])
    z, multipliers = _saddle_solve(ridge, basis, pull, basis.target)
    return z, _scatter(basis, multipliers, fixed)


def implicit_tangents(
    primals: tuple[Array, Array, Array],
    tangents: tuple[Array, Array, Array],
    z: Float[Array, " k"],
    alpha: Float[Array, " n"],
) -> tuple[Float[Array, " k"], Float[Array, " n"]]:
    """Returns the tangents of z and alpha: the implicit function theorem on the margin.

    Args:
      primals: rows, c and ridge.
      tangents: their tangents; the result is linear in them.
      z: the solution.
      alpha: its multipliers, 0 and c off the margin.
    """
    rows, c, _ = primals
    at_bound = reaches_bound(alpha, c)
    interior = jnp.where(at_bound, 0, jnp.minimum(alpha, c - alpha))
    interior /= jnp.maximum(jnp.max(alpha), jnp.finfo(c.dtype).tiny)
    basis = jax.lax.stop_gradient(choose_basis(rows, interior > 0, interior, z, alpha))

    def conditions(rows: Array, c: Array, ridge: Array) -> tuple[Array, Array]:
        pinned = _with_rows(basis, rows)
        stationarity = ridge * z - rows.T @ jnp.where(at_bound, c, alpha)
        return stationarity, pinned.rows @ z - pinned.target

    _, (d_stationarity, d_feasibility) = jax.jvp(conditions, primals, tangents)
    pinned = _with_rows(basis, rows)
    dz, multipliers = _saddle_solve(primals[2], pinned, -d_stationarity, -d_feasibility)
    return dz, _scatter(basis, multipliers, jnp.where(at_bound, tangents[1], 0))
