"""Preconditioners for `cg`: approximate inverses of A + damping I.

`jacobi` needs a diagonal, `nystrom` needs `rank` products with A, `sketched_ntk` needs one pass of
per-example Jacobians, the cost of c products. The last two keep a factor, and so are re-used at
nearby parameters and, by `with_shift`, at another damping.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from unlearnkit.base import Params
from unlearnkit.kernels import _chunks, _trees
from unlearnkit.kernels._trees import Precision, at_precision
from unlearnkit.kernels.ntk import jacobian
from unlearnkit.kernels.solvers import Operator, Scalar, Vector
from unlearnkit.validation.separability import check_rows_alone


def jacobi(diagonal: Vector, *, damping: Scalar) -> Operator:
    """Returns r -> r / (diagonal + damping), as of a Fisher diagonal.

    Args:
      diagonal: of A, like the right-hand side, >= 0.
      damping: of the system; > 0 where the diagonal has zeros.

    Example:
      diagonal = kernels.fisher_diagonal(apply, params, x)
      product = kernels.ggn_operator(apply, params, x, kernels.cross_entropy_hessian)
      settings = {"damping": 0.1, "tol": 1e-3, "max_steps": 100}
      inverse = kernels.jacobi(diagonal, damping=0.1)
      solution, info = kernels.cg(product, v, preconditioner=inverse, **settings)
    """
    return lambda r: jax.tree.map(lambda x, d: x / (d + damping), r, diagonal)


GRAM_ROWS = 4096
"""Of a factor, at a time, where a part of it is taken."""
RIDGE_STEPS = 40
"""Of Newton's method for a sketch's ridge; four to twenty are enough, as the spectrum falls."""


class LowRank(NamedTuple):
    """An approximate inverse (F Fᵀ + shift I)⁻¹ of a matrix on N numbers, callable.

    M r = (r - F (Fᵀ F + shift I)⁻¹ Fᵀ r) / shift, by Woodbury's identity: 2 products with F.

    Attributes:
      factor: F [N, rank].
      gram: Fᵀ F [rank, rank].
      cholesky: the lower triangle of Fᵀ F + shift I.
      shift: what stands for the part of A that F leaves out, and the damping.
      mask: where it is of a part of A, see `restricted_to`, diag(mask) F stands for F.
    """

    factor: Float[Array, "N rank"]
    gram: Float[Array, "rank rank"]
    cholesky: Float[Array, "rank rank"]
    shift: Float[Array, ""]
    mask: Float[Array, " N"] | None = None

    @at_precision
    def __call__(self, r: Vector, *, precision: Precision = "highest") -> Vector:
        """Returns M r, at a precision of the matrix products."""
        flat, unravel = ravel_pytree(r)
        inner = jax.scipy.linalg.cho_solve((self.cholesky, True), self.factor.T @ self._part(flat))
        return unravel((flat - self._part(self.factor @ inner)) / self.shift)

    @classmethod
    def of_factor(cls, factor: Float[Array, "N rank"], shift: Scalar) -> LowRank:
        """Returns the approximate inverse of F Fᵀ + shift I from F."""
        found: LowRank = _low_rank(factor, _gram(factor), jnp.asarray(shift, factor.dtype))
        return found

    @classmethod
    def of_sketch(cls, factor: Float[Array, "N rank"], damping: Scalar, *, columns: int) -> LowRank:
        """Returns an approximate inverse of A + damping I from a random sketch F of a root of A.

        F = R S with A = R Rᵀ and random S, so that F Fᵀ has noise, by which its small eigenvalues
        are not to be trusted. The shift is 2 κ - damping, with κ the ridge that damping and a
        sketch of so many columns amount to together,

            κ = damping + κ / rank  Σ_i e_i / (e_i + κ),   e the eigenvalues of Fᵀ F for those of A

        near the damping where the rank is far above the number of eigenvalues that exceed it, and
        many times as large where it is not: what is best for one rank and damping is far from it
        for others. `benchmarks/ntk_solve.py` counts steps. Where S is square, F Fᵀ is A, and the
        shift is the damping.

        Args:
          factor: F = R S.
          damping: of the system, > 0.
          columns: of R.

        Source: κ is the effective ridge of Jacot et al. 2020, Implicit regularization of random
        feature models; to shift by it, and by how much, is ours.
        """
        gram = _gram(factor)
        shift = jnp.asarray(damping, factor.dtype)
        if factor.shape[1] < columns:
            shift = 2 * _implied_ridge(gram, shift) - shift
        found: LowRank = _low_rank(factor, gram, shift)
        return found

    def _part(self, flat: Array) -> Array:
        return flat if self.mask is None else self.mask * flat

    def with_shift(self, shift: Scalar) -> LowRank:
        """Returns the same approximation at another shift, for one Cholesky factorisation."""
        shift = jnp.asarray(shift, self.factor.dtype)
        found: LowRank = _low_rank(self.factor, self.gram, shift)
        return found._replace(mask=self.mask)

    def restricted_to(self, mask: Float[Array, " N"], *, shift: Scalar) -> LowRank:
        """Returns the approximation for D A D, D = diag(mask), as of a part of the data.

        It shares the factor: besides, only rank² numbers are kept.

        Args:
          mask: one for the numbers that stay, zero for the others.
          shift: see the attribute.
        """
        mask = mask if self.mask is None else self.mask * mask
        gram = _gram_of_part(self.factor, mask)
        found: LowRank = _low_rank(self.factor, gram, jnp.asarray(shift, self.factor.dtype))
        return found._replace(mask=mask)


@at_precision
def nystrom(
    key: Key[Array, ""],
    matvec: Operator,
    like: Vector,
    *,
    rank: int,
    shift: Scalar,
    precision: Precision = "highest",
) -> LowRank:
    """Returns the randomised Nyström approximation of a PSD operator, as a preconditioner.

    A ≈ (A Ω)(Ωᵀ A Ω)⁻¹(A Ω)ᵀ for an orthonormal random Ω [N, rank]: `rank` products with A. It pays
    where the spectrum falls fast or the factor serves many right-hand sides.

    Args:
      key: of Ω.
      matvec: v -> A v, symmetric positive semi-definite, without the damping.
      like: a right-hand side, for its structure and shapes.
      rank: products spent.
      shift: the damping of the system, or a little more.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: `rank` is below 1 or above the size of `like`.

    Example:
      product = kernels.ggn_operator(apply, params, x, kernels.cross_entropy_hessian)
      settings = {"damping": 0.1, "tol": 1e-3, "max_steps": 100}
      inverse = kernels.nystrom(key, product, v, rank=5, shift=0.1)
      solution, info = kernels.cg(product, v, preconditioner=inverse, **settings)

    Source: Frangella, Tropp and Udell 2023, Randomized Nyström preconditioning, algorithm 2.1.
    """
    flat, unravel = ravel_pytree(like)
    _check_rank(rank, flat.size)
    omega = jnp.linalg.qr(jax.random.normal(key, (flat.size, rank), flat.dtype))[0]
    columns = jax.lax.map(lambda v: ravel_pytree(matvec(unravel(v)))[0], omega.T).T
    # A trace of the identity keeps the small matrix positive definite in floating point.
    limits = jnp.finfo(flat.dtype)
    nudge = jnp.sqrt(flat.size) * limits.eps * _trees.norm(columns)
    nudge = jnp.maximum(nudge, limits.tiny / limits.eps)  # where A is zero to the machine
    small = omega.T @ columns + nudge * jnp.eye(rank, dtype=flat.dtype)
    lower = jnp.linalg.cholesky((small + small.T) / 2)
    factor = jax.scipy.linalg.solve_triangular(
        lower, (columns + nudge * omega).T, lower=True
    ).T  # fmt: skip
    found: LowRank = _low_rank(factor, factor.T @ factor, jnp.asarray(shift, flat.dtype))
    return found


@at_precision
def sketched_ntk(
    key: Key[Array, ""],
    apply: Callable[[Params, Array], Array],
    params: Params,
    x: Array,
    *,
    damping: Scalar,
    rank: int = 2048,
    shift: Scalar | None = None,
    chunk: int = 32,
    precision: Precision = "highest",
) -> LowRank:
    """Returns a preconditioner for `ntk_operator` from randomly projected per-example Jacobians.

    Θ = J Jᵀ ≈ (J S)(J S)ᵀ,   S [p, rank] with one random sign per parameter, in column i mod rank.

    A row of J depends on one input alone, so all of J costs c vector-Jacobian products over the
    data, and J S, [n c, rank], is kept in its place: for the price of c products a factor of rank
    `rank`, where the same price buys `nystrom` the rank c. It is the exact Θ where rank >= p.

    Args:
      key: of the signs.
      apply: (params, x) -> [n, c], a row of its own input alone.
      params: where, p numbers.
      x: [n, ...] inputs.
      damping: of the system.
      rank: columns kept; n c rank numbers, and rank³ / 3 + n c rank² multiplications.
      shift: what stands for the rest of the spectrum and the damping; that of `LowRank.of_sketch`
        where None.
      chunk: inputs at a time; chunk c p numbers are held.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: `rank` or `chunk` < 1, `damping` and `shift` leave the approximation singular, or
        `apply` mixes its inputs (not asked under a transformation).

    Example:
      ntk = kernels.ntk_operator(apply, params, x, damping=0.0)
      inverse = kernels.sketched_ntk(key, apply, params, x, damping=1.0, rank=64)
      settings = {"damping": 1.0, "tol": 1e-3, "max_steps": 100}
      solution, info = kernels.cg(ntk, apply(params, x), preconditioner=inverse, **settings)

    Source: Clarkson and Woodruff 2013 (sparse embeddings); the projected Jacobians are the features
    of Park et al. 2023 (TRAK). Its use as a preconditioner is ours: see `benchmarks/ntk_solve.py`.
    """
    _trees.check_positive(rank=rank, chunk=chunk)
    least = damping if shift is None else shift
    if not isinstance(least, jax.core.Tracer) and not least > 0:
        raise ValueError(f"shift must be > 0, got {least}; give one where damping is 0")
    check_rows_alone(apply, params, x)
    leaves = jax.tree.leaves(params)
    size, dtype = sum(leaf.size for leaf in leaves), jnp.result_type(*leaves)
    signs = jax.random.rademacher(key, (size,), dtype)
    rows = partial(_sketched_rows, apply, min(rank, size))
    factor = _chunks.by_chunks(rows, (params, signs), (x,), chunk)
    factor = factor.reshape(-1, factor.shape[-1])
    if shift is None:
        return LowRank.of_sketch(factor, damping, columns=size)
    return LowRank.of_factor(factor, shift)


@partial(jax.jit, static_argnums=(0, 1))
def _sketched_rows(
    apply: Callable[[Params, Array], Array], rank: int, point: tuple[Params, Array], x: Array
) -> Array:
    params, signs = point
    leaves = jax.tree.leaves(jacobian(apply, params, x))
    n, c = leaves[0].shape[:2]
    rows = jnp.concatenate([leaf.reshape(n, c, -1) for leaf in leaves], axis=-1) * signs
    rows = jnp.pad(rows, ((0, 0), (0, 0), (0, -signs.size % rank)))
    return rows.reshape(n, c, -1, rank).sum(axis=2)


@jax.jit
def _gram(factor: Array) -> Array:
    return factor.T @ factor


@jax.jit
def _gram_of_part(factor: Array, mask: Array) -> Array:
    """Returns Fᵀ D² F in blocks of rows, so that D F is never held whole."""

    def of_rows(_: None, rows: Array, part: Array) -> Array:
        kept = part[:, None] * rows
        return kept.T @ kept

    found: Array = _chunks.sum_batches(of_rows, None, (factor, mask), GRAM_ROWS)
    return found


@jax.jit
def _implied_ridge(gram: Array, damping: Array) -> Array:
    """Returns the ridge κ of `LowRank.of_sketch`, by Newton's method.

    The right-hand side of its equation less κ is concave, and below 0 from `damping` plus the mean
    of e on: from there every step stays above the solution.
    """
    values = jnp.maximum(jnp.linalg.eigvalsh(gram), 0)

    def step(_: Array, ridge: Array) -> Array:
        parts = values / (values + ridge)
        return ridge - (damping + ridge * (parts.mean() - 1)) / (jnp.mean(parts**2) - 1)

    found: Array = jax.lax.fori_loop(0, RIDGE_STEPS, step, damping + values.mean())
    return found


def _low_rank(factor: Array, gram: Array, shift: Array) -> LowRank:
    return LowRank(factor, gram, _shifted_cholesky(gram, shift), shift)


@jax.jit
def _shifted_cholesky(gram: Array, shift: Array) -> Array:
    found: Array = jnp.linalg.cholesky(gram + shift * jnp.eye(len(gram), dtype=gram.dtype))
    return found


def _check_rank(rank: int, size: int) -> None:
    if not 1 <= rank <= size:
        raise ValueError(f"rank must be from 1 to the number of unknowns {size}, got {rank}")
