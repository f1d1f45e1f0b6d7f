"""Conjugate gradients for many right-hand sides at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from unlearnkit.base import SolveInfo
from unlearnkit.kernels import _trees
from unlearnkit.kernels._trees import Precision, at_precision
from unlearnkit.kernels.solvers import (
    HEADWAY,
    MARGIN,
    Operator,
    Vector,
    check,
    check_number,
    damped,
)

Factorise: TypeAlias = Callable[[Array], tuple[Array, Array, Array]]


class _State(NamedTuple):
    """R = Q sizes, with Qᵀ M Q = I."""

    x: Array
    q: Array
    p: Array
    sizes: Array
    curvature: Array
    steps: Array
    sound: Array


class _Rounds(NamedTuple):
    x: Array
    r: Array
    left: Array
    steps: Array
    curvature: Array
    go: Array


@at_precision
def block_cg(
    matvec: Operator,
    b: Vector,
    *,
    damping: Array | float,
    tol: Array | float,
    max_steps: int,
    preconditioner: Operator | None = None,
    precision: Precision = "highest",
) -> tuple[Vector, SolveInfo]:
    """Returns the solutions of (A + damping I) x_i = b_i for k right-hand sides, A PSD.

    All share one Krylov space of k new directions a step, so that they converge in fewer steps than
    alone, as where k eigenvalues stand apart; the k products of a step run side by side.

    Args:
      matvec: v -> A v, symmetric positive semi-definite, of one vector.
      b: right-hand sides, with k in front of every leaf, at most as many as unknowns.
      damping: added to the diagonal.
      tol: wanted ‖b_i - (A + damping I) x_i‖ / ‖b_i‖ of each.
      max_steps: the most steps, k products each.
      preconditioner: r -> M r, symmetric positive definite, close to the inverse of A + damping I.
      precision: of the matrix products; see `Precision`.

    Returns:
      x like `b`, and how the solve ended: `info.residual` [k] and `info.converged` [k] of each.

    Raises:
      ValueError: `b` is not real floating point or has more right-hand sides than unknowns,
        `max_steps` < 1, or `tol` or `damping` < 0.

    Example:
      product = kernels.ggn_operator(apply, params, x, kernels.cross_entropy_hessian)
      both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf**2]), v)
      solutions, ended = kernels.block_cg(product, both, damping=0.1, tol=1e-3, max_steps=50)
      print(ended.steps, ended.residual)

    Source: O'Leary 1980; Dubrulle 2001, Retooling the method of block conjugate gradients, whose
    residuals are orthonormalised (BCGrQ), so that one that converges early breaks nothing; here in
    the inner product of M.
    """
    check(b, tol, max_steps)
    check_number("damping", damping)
    k = _trees.count(b)
    unravel = ravel_pytree(_trees.rows(b, 0, 1))[1]
    rows = jax.vmap(lambda one: ravel_pytree(one)[0])(b)
    if k > rows.shape[1]:
        raise ValueError(f"b has {k} right-hand sides for {rows.shape[1]} unknowns; take fewer")

    def on_columns(product: Operator) -> Operator:
        def one(flat: Array) -> Array:
            vector = jax.tree.map(lambda leaf: leaf[0], unravel(flat))
            return ravel_pytree(product(vector))[0]

        return jax.vmap(one, in_axes=1, out_axes=1)

    units = jax.vmap(_trees.unit)(rows)
    system = on_columns(damped(matvec, damping))
    factorise = partial(_factorise, None if preconditioner is None else on_columns(preconditioner))
    x, info = _solve(system, factorise, (rows / units[:, None]).T, tol, max_steps)
    solutions = jax.vmap(lambda flat: jax.tree.map(lambda leaf: leaf[0], unravel(flat)))(x.T)
    scaled = jax.vmap(_trees.scale)(units, solutions)
    return scaled, info


def _factorise(precondition: Operator | None, r: Array) -> tuple[Array, Array, Array]:
    """Returns Q, M Q and C with R = Q C and Qᵀ M Q = I, whatever the rank of R."""
    q, sizes = jnp.linalg.qr(r)
    if precondition is None:
        return q, q, sizes
    z = precondition(q)
    inner = q.T @ z
    lower = jnp.linalg.cholesky((inner + inner.T) / 2)
    q, z = (jax.scipy.linalg.solve_triangular(lower, rows.T, lower=True).T for rows in (q, z))
    return q, z, lower.T @ sizes


def _solve(
    system: Operator, factorise: Factorise, b: Array, tol: Array | float, max_steps: int
) -> tuple[Array, SolveInfo]:
    """Solves for the columns of b [N, k] in rounds, each begun at the true residuals."""
    sizes = jnp.linalg.norm(b, axis=0)
    safe = jnp.where(sizes > 0, sizes, 1)

    def proceed(state: _Rounds) -> Array:
        found: Array = state.go & jnp.any(state.left > tol) & (state.steps < max_steps)
        return found

    def body(state: _Rounds) -> _Rounds:
        end = _one_round(system, factorise, state, MARGIN * tol * sizes, max_steps)
        r = b - system(end.x)
        left = jnp.linalg.norm(r, axis=0) / safe
        headway = jnp.any((left < HEADWAY * state.left) & (state.left > tol))
        return _Rounds(end.x, r, left, end.steps, end.curvature, end.sound & headway)

    nan = jnp.asarray(jnp.nan, b.dtype)
    start = _Rounds(
        jnp.zeros_like(b), b, sizes / safe, jnp.asarray(0), nan, jnp.asarray(True)
    )  # fmt: skip
    end = jax.lax.while_loop(proceed, body, start)
    return end.x, SolveInfo(end.left, end.steps, end.left <= tol, end.curvature)


def _least_quotient(inner: Array, sizes: Array) -> Array:
    """Returns the least v·A v / v·v over all v = P u, of Pᵀ A P and Pᵀ P."""
    lower = jnp.linalg.cholesky(sizes)
    half = jax.scipy.linalg.solve_triangular(lower, inner, lower=True)
    whole = jax.scipy.linalg.solve_triangular(lower, half.T, lower=True)
    found: Array = jnp.linalg.eigvalsh((whole + whole.T) / 2)[0]
    return found


def _one_round(
    system: Operator, factorise: Factorise, begun: _Rounds, wanted: Array, max_steps: int
) -> _State:
    q, z, sizes = factorise(begun.r)

    def step(state: _State) -> _State:
        ap = system(state.p)
        inner = state.p.T @ ap
        lower = jnp.linalg.cholesky((inner + inner.T) / 2)
        # Not finite where a direction has no positive curvature.
        sound = jnp.all(jnp.isfinite(lower))
        alpha = jax.scipy.linalg.cho_solve((jnp.where(sound, lower, jnp.eye(len(lower))), True),
                                           jnp.where(sound, jnp.eye(len(lower)), 0))  # fmt: skip
        q, z, turn = factorise(state.q - ap @ alpha)
        least = _least_quotient(inner, state.p.T @ state.p)
        return _State(
            x=state.x + state.p @ (alpha @ state.sizes),
            q=q,
            p=z + state.p @ turn.T,
            sizes=jnp.where(sound, turn @ state.sizes, state.sizes),
            curvature=jnp.fmin(state.curvature, least),
            steps=state.steps + 1,
            sound=sound,
        )

    def proceed(state: _State) -> Array:
        left = jnp.linalg.norm(state.q @ state.sizes, axis=0)
        return state.sound & jnp.any(left > wanted) & (state.steps < max_steps)

    start = _State(begun.x, q, z, sizes, begun.curvature, begun.steps, jnp.asarray(True))
    return jax.lax.while_loop(proceed, step, start)
