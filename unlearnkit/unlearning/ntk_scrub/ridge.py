"""The two ridge problems of the L2 loss, by products with Θ.

With J the Jacobian over all N examples, Θ = J Jᵀ, r the errors of the linearised network at the
centre c of the decay, and ρ = N λ, ρ_r = N_r λ the ridges that a mean loss with decay λ amounts to:

    w_D  - c = Jᵀ v,     (Θ + ρ) v = r              trained on all
    w_Dr - c = J_rᵀ u,   (Θ_rr + ρ_r) u = r_r       trained on the retain set
    w_Dr - w_D = -Jᵀ a,  a = v - [u; 0],  (Θ + ρ) a = [-(ρ - ρ_r) u; V],  V = r_f - Θ_rfᵀ u

The last line gives the shift without the cancellation of the two before it. Eliminating the retain
set from it is equation (10) of Golatkar et al. 2020b, corrected, with a ridge of its own for each
of the two runs.

What a solve leaves, b - (Θ + ρ) x = s, moves the weights Jᵀ x by at most ‖s‖ / (2 √ρ), since
σ / (σ² + ρ) <= 1 / (2 √ρ) for every singular value σ of J. What u leaves enters the shift as errors
on the retain set do, through both trainings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unlearnkit import kernels
from unlearnkit.base import SolveInfo
from unlearnkit.kernels.solvers import Scalar
from unlearnkit.unlearning.ntk_scrub.settings import NtkSettings

REFINEMENTS = 8
"""Of a solve whose products are rounded, at most."""
NEAR_TOL = 0.05
"""Relative residual of each of them."""


Preconditioners: TypeAlias = tuple[Any, Any]


class Ridges(NamedTuple):
    """ρ and ρ_r."""

    all: Scalar
    retain: Scalar


class Duals(NamedTuple):
    """u, zero on the forget set, and a of the module's docstring.

    Attributes:
      retrained: u [n, c].
      step: a [n, c].
      solves: how the two solves ended.
      error: of Jᵀ a, at most, in the norm of the weights.
      products: with Θ that were not rounded.
    """

    retrained: Array
    step: Array
    solves: dict[str, SolveInfo]
    error: Float[Array, ""]
    products: Array


class Kernel(NamedTuple):
    """Products with Θ on [n, c].

    Attributes:
      theta: v -> Θ v.
      near: the same to a few digits.
      is_exact: whether they are the same function.
    """

    theta: Callable[[Array], Array]
    near: Callable[[Array], Array]
    is_exact: bool


def solve_ridges(
    kernel: Kernel,
    settings: NtkSettings,
    errors: Float[Array, "n c"],
    ridges: Ridges,
    m: int,
    preconditioners: Preconditioners,
) -> Duals:
    """Returns both solutions by conjugate gradients.

    Args:
      kernel: products with Θ.
      settings: tolerances.
      errors: r.
      ridges: ρ and ρ_r.
      m: N_r.
      preconditioners: of Θ + ρ and Θ_rr + ρ_r on [n, c], or None.
    """
    for_all, for_retain = preconditioners
    kept = jnp.arange(len(errors))[:, None] < m

    def part(product: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda v: jnp.where(kept, product(jnp.where(kept, v, 0)), 0)

    of_retain = Kernel(part(kernel.theta), part(kernel.near), kernel.is_exact)
    retained = jnp.where(kept, errors, 0)
    u, u_info, of_u = _solve(of_retain, retained, ridges.retain, for_retain, settings)
    rest = jnp.where(kept, (ridges.retain - ridges.all) * u, errors - kernel.theta(u))
    a, a_info, of_a = _solve(kernel, rest, ridges.all, for_all, settings)
    left_u = u_info.residual * kernels.tree_norm(retained)
    left_a = a_info.residual * kernels.tree_norm(rest)
    by_all, by_retain = (0.5 / jnp.sqrt(jnp.asarray(r, errors.dtype)) for r in ridges)
    error = left_u * (by_all + by_retain) + left_a * by_all
    return Duals(u, a, {"all": a_info, "retain": u_info}, error, of_u + of_a + 1)


def _solve(
    kernel: Kernel,
    b: Array,
    ridge: Scalar,
    preconditioner: Any,
    settings: NtkSettings,
) -> tuple[Array, SolveInfo, Array]:
    """Returns x, how it ended, and the products that were not rounded."""
    solve = partial(
        kernels.cg,
        damping=ridge,
        max_steps=settings.max_steps,
        preconditioner=preconditioner,
    )
    if kernel.is_exact:
        x, info = solve(kernel.theta, b, tol=settings.tol)
        return x, info, info.steps + 1
    size = kernels.tree_norm(b)

    def proceed(state: tuple[Array, Array, SolveInfo, Array]) -> Array:
        _, _, info, count = state
        found: Array = ~info.converged & (count < REFINEMENTS) & (info.steps < settings.max_steps)
        return found

    def refine(
        state: tuple[Array, Array, SolveInfo, Array],
    ) -> tuple[Array, Array, SolveInfo, Array]:
        x, left, info, count = state
        correction, near = solve(kernel.near, left, tol=NEAR_TOL)
        x = x + correction
        left = b - kernel.theta(x) - ridge * x
        residual = kernels.tree_norm(left) / jnp.where(size > 0, size, 1)
        steps, curvature = info.steps + near.steps, jnp.fmin(info.curvature, near.curvature)
        return x, left, SolveInfo(residual, steps, residual <= settings.tol, curvature), count + 1

    one = jnp.ones((), b.dtype)
    begin = SolveInfo(one, jnp.asarray(0), size == 0, jnp.full_like(one, jnp.nan))
    x, _, info, count = jax.lax.while_loop(
        proceed, refine, (jnp.zeros_like(b), b, begin, jnp.asarray(0))
    )
    return x, info, count


def factorised(theta: Float[Array, "nc nc"], ridges: Ridges, m: int, c: int) -> Preconditioners:
    """Returns preconditioners of Θ + ρ and Θ_rr + ρ_r from one Cholesky factor of Θ + ρ.

    The retain set comes first, and the factor of a leading block is the leading block of the
    factor. It is that of Θ_rr + ρ, which differs from what is wanted in the ridge alone.

    Args:
      theta: Θ.
      ridges: ρ and ρ_r.
      m: N_r.
      c: outputs of an example.
    """
    cut = m * c
    lower = jnp.linalg.cholesky(theta + ridges.all * jnp.eye(len(theta), dtype=theta.dtype))

    def for_all(r: Array) -> Array:
        return jax.scipy.linalg.cho_solve((lower, True), r.reshape(-1)).reshape(r.shape)

    def for_retain(r: Array) -> Array:
        flat = jax.scipy.linalg.cho_solve((lower[:cut, :cut], True), r.reshape(-1)[:cut])
        return jnp.zeros_like(r.reshape(-1)).at[:cut].set(flat).reshape(r.shape)

    return for_all, for_retain


def solve_blocks(
    theta: Float[Array, "nc nc"], settings: NtkSettings, errors: Array, ridges: Ridges, m: int
) -> Duals:
    """Returns both solutions by the P, M and V of equation (10), corrected.

    Args:
      theta: Θ.
      settings: the tolerance by which a solve has converged.
      errors: r.
      ridges: ρ and ρ_r.
      m: N_r.
    """
    flat, cut = errors.reshape(-1), m * errors.shape[1]
    theta_rr, theta_rf, theta_ff = theta[:cut, :cut], theta[:cut, cut:], theta[cut:, cut:]
    r_r, r_f = flat[:cut], flat[cut:]
    u, of_retain = _solve_dense(theta_rr, r_r, ridges.retain, settings.tol)
    v = r_f - theta_rf.T @ u
    carried = (ridges.retain - ridges.all) * u
    identity = jnp.eye(cut, dtype=theta.dtype)
    inverse = partial(jax.scipy.linalg.solve, theta_rr + ridges.all * identity, assume_a="pos")
    schur = theta_ff - theta_rf.T @ inverse(theta_rf)
    a_f, _ = _solve_dense(schur, v - theta_rf.T @ inverse(carried), ridges.all, settings.tol)
    # -Jᵀ a = -P J_fᵀ M V, and what the second ridge carries over.
    a = jnp.concatenate([inverse(carried - theta_rf @ a_f), a_f])
    of_all = _measure(theta, a, jnp.concatenate([carried, v]), ridges.all, settings.tol)
    return _unflattened(u, a, errors, {"all": of_all, "retain": of_retain})


def solve_published(
    theta: Float[Array, "nc nc"], settings: NtkSettings, errors: Array, ridges: Ridges, m: int
) -> Duals:
    """Returns both solutions as the public code does: two dense solves, and their difference.

    Args:
      theta: Θ.
      settings: the tolerance by which a solve has converged.
      errors: r.
      ridges: ρ and ρ_r.
      m: N_r.
    """
    flat, cut = errors.reshape(-1), m * errors.shape[1]
    u, of_retain = _solve_dense(theta[:cut, :cut], flat[:cut], ridges.retain, settings.tol)
    v, of_all = _solve_dense(theta, flat, ridges.all, settings.tol)
    a = v - jnp.zeros_like(v).at[:cut].set(u)
    return _unflattened(u, a, errors, {"all": of_all, "retain": of_retain})


def _unflattened(u: Array, a: Array, errors: Array, solves: dict[str, SolveInfo]) -> Duals:
    whole = jnp.zeros_like(errors.reshape(-1)).at[: len(u)].set(u)
    nothing = jnp.asarray(jnp.nan, errors.dtype)
    shape, none = errors.shape, jnp.asarray(0)
    return Duals(whole.reshape(shape), a.reshape(shape), solves, nothing, none)


def _solve_dense(matrix: Array, b: Array, ridge: Scalar, tol: float) -> tuple[Array, SolveInfo]:
    shifted = matrix + ridge * jnp.eye(len(b), dtype=b.dtype)
    x = jax.scipy.linalg.solve(shifted, b, assume_a="pos")
    return x, _measure(matrix, x, b, ridge, tol)


def _measure(matrix: Array, x: Array, b: Array, ridge: Scalar, tol: float) -> SolveInfo:
    size = kernels.tree_norm(b)
    left = kernels.tree_norm(b - matrix @ x - ridge * x)
    residual = left / jnp.where(size > 0, size, 1)
    nothing = jnp.asarray(jnp.nan, b.dtype)
    return SolveInfo(residual, jnp.asarray(1), residual <= tol, nothing)
