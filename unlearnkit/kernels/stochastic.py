"""Traces, log-determinants and diagonals of matrices that are known by their products alone.

An estimator is an integrand and a sampler: the mean of integrand(v) over random v, with the
standard error that tells how far to trust it.

    E v·A v = tr A,   E v·f(A) v = tr f(A),   E v∘A v = diag A   for v of independent signs
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key

from unlearnkit.kernels import _trees
from unlearnkit.kernels._trees import Precision, at_precision
from unlearnkit.kernels.lanczos import lanczos
from unlearnkit.kernels.solvers import Operator, Vector

Drawn = TypeVar("Drawn")
Sampler: TypeAlias = Callable[[Key[Array, ""]], Drawn]
"""key -> a random vector, or random weights."""


class Estimate(NamedTuple):
    """A mean over random draws.

    Attributes:
      mean: of the integrand, like it.
      standard_error: of the mean: the sample's standard deviation over √samples, like it; NaN of
        one draw.
    """

    mean: Vector
    standard_error: Vector


def estimate(
    key: Key[Array, ""],
    sampler: Sampler[Drawn],
    integrand: Callable[[Drawn], Vector],
    *,
    samples: int,
    at_once: int = 1,
) -> Estimate:
    """Returns the mean of integrand(sampler(key)) over independent keys, and its standard error.

    Args:
      key: of all draws.
      sampler: key -> a draw, as `rademacher(like)`, or `lambda key: model.init(key).params`.
      integrand: of a draw -> an array, or a pytree of them, as `quadratic_form(product)`.
      samples: draws.
      at_once: draws that are computed side by side; samples must be a multiple of it.

    Raises:
      ValueError: `samples` or `at_once` < 1, or one is no multiple of the other.

    Example:
      product = kernels.hvp_operator(lambda p: loss(p, x, y), params)
      found = kernels.estimate(
          key, kernels.rademacher(params), kernels.quadratic_form(product), samples=10
      )
      print(found.mean, "+-", found.standard_error)  # the trace of the Hessian

    Source: Hutchinson 1990; the parting of integrand and sampler is that of Krämer's matfree.
    """
    _trees.check_positive(samples=samples, at_once=at_once)
    if samples % at_once:
        raise ValueError(f"samples must be a multiple of at_once {at_once}, got {samples}")
    keys = jax.random.split(key, samples).reshape(samples // at_once, at_once)

    def of_key(key: Key[Array, ""]) -> Vector:
        return integrand(sampler(key))

    def alone(keys: Key[Array, " one"]) -> Vector:
        """As `vmap` over one key, which would turn the products into slower batched ones."""
        return jax.tree.map(lambda leaf: leaf[None], of_key(keys[0]))

    values = alone if at_once == 1 else jax.vmap(of_key)
    shapes = jax.eval_shape(values, keys[0])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), shapes)

    def add(state: _Moments, keys: Key[Array, " at_once"]) -> tuple[_Moments, None]:
        return _add(state, values(keys), at_once), None

    start = _Moments(jnp.zeros((), jnp.int32), zeros, zeros)
    end = jax.lax.scan(add, start, keys)[0]
    freedom = float("nan") if samples == 1 else samples * (samples - 1)
    errors = jax.tree.map(lambda s: jnp.sqrt(s / freedom), end.squares)
    return Estimate(end.mean, errors)


class _Moments(NamedTuple):
    """The number of draws, their mean, and the sum of squared distances from it."""

    draws: Array
    mean: Vector
    squares: Vector


def _add(state: _Moments, values: Vector, size: int) -> _Moments:
    """Returns the moments with those of `size` further values."""
    draws = state.draws + size
    means = jax.tree.map(lambda v: v.mean(axis=0), values)
    moved = _trees.subtract(means, state.mean)
    mean = jax.tree.map(lambda m, d: m + d * (size / draws).astype(d.dtype), state.mean, moved)
    squares = jax.tree.map(
        lambda s, v, m, d: (
            s + jnp.sum((v - m) ** 2, axis=0) + d**2 * (state.draws * size / draws).astype(d.dtype)
        ),
        state.squares,
        values,
        means,
        moved,
    )
    return _Moments(draws, mean, squares)


def rademacher(like: Vector) -> Sampler[Vector]:
    """Returns key -> a vector like `like` of independent signs.

    Example:
      v = kernels.rademacher(params)(key)
    """
    flat, unravel = ravel_pytree(like)
    return lambda key: unravel(jax.random.rademacher(key, flat.shape, flat.dtype))


def gaussian(like: Vector) -> Sampler[Vector]:
    """Returns key -> a vector like `like` of independent normal numbers.

    Example:
      v = kernels.gaussian(params)(key)
    """
    flat, unravel = ravel_pytree(like)
    return lambda key: unravel(jax.random.normal(key, flat.shape, flat.dtype))


def quadratic_form(matvec: Operator) -> Callable[[Vector], Array]:
    """Returns v -> v·A v, whose mean is the trace of A.

    Example:
      product = kernels.hvp_operator(lambda p: loss(p, x, y), params)
      value = kernels.quadratic_form(product)(v)
    """
    return lambda v: _trees.dot(v, matvec(v))


def diagonal_form(matvec: Operator) -> Callable[[Vector], Vector]:
    """Returns v -> v∘A v, whose mean is the diagonal of A.

    Example:
      product = kernels.hvp_operator(lambda p: loss(p, x, y), params)
      found = kernels.estimate(
          key, kernels.rademacher(params), kernels.diagonal_form(product), samples=10
      )

    Source: Bekas, Kokiopoulou and Saad 2007.
    """
    return lambda v: jax.tree.map(jnp.multiply, v, matvec(v))


def lanczos_quadrature(
    matvec: Operator, function: Callable[[Array], Array], *, steps: int
) -> Callable[[Vector], Array]:
    """Returns v -> v·f(A) v by `steps` products, whose mean is the trace of f(A).

    ‖v‖² Σ_i w_i f(θ_i), with θ the eigenvalues of the Lanczos matrix and w the squared first
    entries of its eigenvectors: exact for polynomials up to degree 2 steps - 1.

    Args:
      matvec: v -> A v, symmetric.
      function: f of an array [steps] -> [steps, ...]; f may have several values, as a density on a
        grid.
      steps: of Lanczos, at most the size of v; fewer where the Krylov space ends.

    Raises:
      ValueError: `steps` is below 1 or above the size of v.

    Example:
      product = kernels.ggn_operator(apply, params, x, kernels.cross_entropy_hessian)
      value = kernels.lanczos_quadrature(product, jnp.sqrt, steps=5)(v)

    Source: Ubaru, Chen and Saad 2017, Fast estimation of tr f(A) via stochastic Lanczos quadrature.
    """

    def integrand(v: Vector) -> Array:
        found = lanczos(matvec, v, steps=steps)
        values, vectors = jnp.linalg.eigh(found.matrix)
        weights, at = vectors[0] ** 2, function(values)
        # Past the end of the Krylov space are zeros, at which f does not count, however large.
        counts = weights > jnp.finfo(weights.dtype).eps ** 2
        safe = jnp.where(counts.reshape(-1, *(1,) * (at.ndim - 1)), at, 0)
        total: Array = _trees.dot(v, v) * jnp.tensordot(weights, safe, axes=1)
        return total

    return integrand


@at_precision
def trace(
    key: Key[Array, ""],
    matvec: Operator,
    like: Vector,
    *,
    samples: int,
    at_once: int = 1,
    precision: Precision = "highest",
) -> Estimate:
    """Returns the trace of A, from products with random signs.

    Args:
      key: of the vectors.
      matvec: v -> A v, symmetric.
      like: a vector, for its structure and shapes.
      samples: vectors, a product each.
      at_once: products side by side.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: see `estimate`.

    Example:
      product = kernels.hvp_operator(lambda p: loss(p, x, y), params)
      found = kernels.trace(key, product, params, samples=10)
    """
    settings = {"samples": samples, "at_once": at_once}
    return estimate(key, rademacher(like), quadratic_form(matvec), **settings)


@at_precision
def log_determinant(
    key: Key[Array, ""],
    matvec: Operator,
    like: Vector,
    *,
    damping: Array | float,
    steps: int,
    samples: int,
    at_once: int = 1,
    precision: Precision = "highest",
) -> Estimate:
    """Returns log det (A + damping I) = tr log (A + damping I), by stochastic Lanczos quadrature.

    The standard error is that of the random vectors; that of too few `steps` comes on top.

    Args:
      key: of the vectors.
      matvec: v -> A v, symmetric positive semi-definite.
      like: a vector, for its structure and shapes.
      damping: added to the diagonal, so that the sum is positive definite. Eigenvalues that
        rounding takes below machine epsilon times the damping count as that.
      steps: of Lanczos; the condition number decides how many it takes.
      samples: vectors, `steps` products each.
      at_once: vectors side by side.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: see `lanczos_quadrature` and `estimate`.

    Example:
      product = kernels.ggn_operator(apply, params, x, kernels.cross_entropy_hessian)
      found = kernels.log_determinant(key, product, params, damping=0.1, steps=5, samples=10)

    Source: Ubaru, Chen and Saad 2017.
    """

    def log(values: Array) -> Array:
        least = jnp.finfo(values.dtype).eps * damping
        return jnp.log(jnp.maximum(values + damping, least))

    integrand = lanczos_quadrature(matvec, log, steps=steps)
    return estimate(key, rademacher(like), integrand, samples=samples, at_once=at_once)
