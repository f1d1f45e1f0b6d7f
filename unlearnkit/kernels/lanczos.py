"""The Lanczos method: a symmetric operator seen from a Krylov space, and eigenpairs from there."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key

from unlearnkit.kernels import _trees
from unlearnkit.kernels._outputs import check_fits
from unlearnkit.kernels._trees import Precision, at_precision
from unlearnkit.kernels.solvers import Operator, Vector
from unlearnkit.validation import check_choice

Which: TypeAlias = Literal["largest", "smallest", "magnitude"]


class Tridiagonal(NamedTuple):
    """A symmetric operator A on a Krylov space: A Qᵀ = Qᵀ T + residual e_last.

    Attributes:
      basis: Q [steps, N], orthonormal rows; zeros past the end of the space.
      matrix: T [steps, steps], tridiagonal; zeros past the end of the space.
      residual: the norm of what A takes out of the space at its end.
      length: the size of the space; `steps` unless it ended early.
    """

    basis: Float[Array, "steps N"]
    matrix: Float[Array, "steps steps"]
    residual: Float[Array, ""]
    length: Int[Array, ""]


class Eigenpairs(NamedTuple):
    """Eigenvalues and eigenvectors of a symmetric operator.

    Attributes:
      values: [k].
      vectors: like the vectors of the operator, with k in front; orthonormal.
      residuals: ‖A v - λ v‖ of each, as Lanczos tells it.
        Pairs that the Krylov space has not, as it ended early, have infinite residuals.
      converged: whether each residual is at most tol times the largest eigenvalue's size.
    """

    values: Float[Array, " k"]
    vectors: Vector
    residuals: Float[Array, " k"]
    converged: Bool[Array, " k"]


class _State(NamedTuple):
    basis: Array
    diagonal: Array
    off_diagonal: Array
    q: Array
    size: Array
    length: Array


@at_precision
def lanczos(
    matvec: Operator, start: Vector, *, steps: int, precision: Precision = "highest"
) -> Tridiagonal:
    """Returns a symmetric operator on the Krylov space of `start`, orthogonalised in full.

    One product a step, and 4 steps² N multiplications; steps x N numbers are held. The space ends
    early where A maps it into itself.

    Args:
      matvec: v -> A v, symmetric.
      start: the first vector, not 0.
      steps: the size of the space.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: `steps` is below 1 or above the size of `start`, or `start` is not real floating
        point.

    Example:
      product = kernels.ggn_operator(apply, params, x, kernels.cross_entropy_hessian)
      found = kernels.lanczos(product, v, steps=5)
      values = jnp.linalg.eigvalsh(found.matrix)

    Source: Lanczos 1950; twice reorthogonalised, as Parlett 1998, §6.9.
    """
    flat, unravel = ravel_pytree(start)
    if not jnp.issubdtype(flat.dtype, jnp.floating):
        raise ValueError(f"start must be real floating point, got {flat.dtype}")
    if not 1 <= steps <= flat.size:
        raise ValueError(f"steps must be from 1 to the number of unknowns {flat.size}, got {steps}")
    what = f"the basis {[steps, flat.size]}"
    check_fits(steps * flat.size, flat.dtype, what, "take fewer steps")
    eps = jnp.finfo(flat.dtype).eps
    norm = _trees.norm(flat)

    def step(i: Array, state: _State) -> _State:
        basis = state.basis.at[i].set(state.q)
        w = ravel_pytree(matvec(unravel(state.q)))[0]
        alpha = jnp.vdot(state.q, w)
        for _ in range(2):  # once leaves what rounding brings back
            w = w - basis.T @ (basis @ w)
        beta = _trees.norm(w)
        size = jnp.maximum(state.size, jnp.hypot(alpha, beta))
        ends = beta <= 10 * eps * size
        beta = jnp.where(ends, 0, beta)
        q = jnp.where(ends, 0, w / jnp.where(ends, 1, beta))
        alive = jnp.any(state.q != 0)
        return _State(
            basis,
            state.diagonal.at[i].set(alpha),
            state.off_diagonal.at[i].set(beta),
            q,
            size,
            state.length + alive,
        )

    zeros = jnp.zeros(steps, flat.dtype)
    first = flat / jnp.where(norm > 0, norm, 1)
    nothing = jnp.zeros((), flat.dtype)
    begin = _State(
        jnp.zeros((steps, flat.size), flat.dtype), zeros, zeros, first, nothing, jnp.asarray(0)
    )
    end = jax.lax.fori_loop(0, steps, step, begin)
    beside = end.off_diagonal[:-1]
    matrix = jnp.diag(end.diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
    residual = jnp.where(end.length == steps, end.off_diagonal[-1], 0)
    return Tridiagonal(end.basis, matrix, residual, end.length)


@at_precision
def lanczos_eigenpairs(
    key: Key[Array, ""],
    matvec: Operator,
    like: Vector,
    *,
    k: int,
    steps: int,
    which: str = "largest",
    tol: float = 1e-3,
    precision: Precision = "highest",
) -> Eigenpairs:
    """Returns k eigenpairs of a symmetric operator, as of a Hessian, a Gauss-Newton matrix, an NTK.

    By `steps` Lanczos steps from a random vector. Of an eigenvalue that is there several times one
    vector is found. `top_eigenvector` takes as many steps as one pair needs, on the host.

    Args:
      key: of the first vector.
      matvec: v -> A v, symmetric, definite or not.
      like: a vector, for its structure and shapes.
      k: pairs.
      steps: products, at least k; two or three times k where the spectrum's ends stand apart.
      which: `largest` first, `smallest` first, or `magnitude`, the largest in size.
      tol: of `converged`.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: `which` is none of these, `k` is not from 1 to `steps`, or `steps` is above the
        size of `like`.

    Example:
      product = kernels.hvp_operator(lambda p: loss(p, x, y), params)
      pairs = kernels.lanczos_eigenpairs(key, product, params, k=3, steps=9)
      print(pairs.values, pairs.converged)

    Source: Parlett 1998, The symmetric eigenvalue problem, §13.
    """
    check_choice("which", which, Which)
    flat, unravel = ravel_pytree(like)
    if not 1 <= k <= steps:
        raise ValueError(f"k must be from 1 to steps {steps}, got {k}")
    start = unravel(jax.random.normal(key, flat.shape, flat.dtype))
    found = lanczos(matvec, start, steps=steps, precision=precision)
    outside = jnp.arange(steps) >= found.length
    # Apart from all that belongs to the space, so that no eigenvector lies in both.
    apart = 4 * jnp.max(jnp.abs(found.matrix)) + 1
    values, inside = jnp.linalg.eigh(found.matrix + jnp.diag(jnp.where(outside, apart, 0)))
    reached = jnp.sum(jnp.where(outside[:, None], inside**2, 0), axis=0) < 0.5
    rank = {"largest": -values, "smallest": values, "magnitude": -jnp.abs(values)}[which]
    chosen = jnp.argsort(jnp.where(reached, rank, jnp.inf))[:k]
    residuals = jnp.where(reached[chosen], found.residual * jnp.abs(inside[-1, chosen]), jnp.inf)
    largest = jnp.max(jnp.where(reached, jnp.abs(values), 0))
    vectors = jax.vmap(unravel)(inside[:, chosen].T @ found.basis)
    return Eigenpairs(values[chosen], vectors, residuals, residuals <= tol * largest)
