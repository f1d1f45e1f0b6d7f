"""The top eigenvector of a symmetric matrix that is known by its products alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.linalg import eigh_tridiagonal

from unlearnkit.base import SolveInfo


class TopEigenvector(NamedTuple):
    """The largest eigenvalue of a matrix and its eigenvector.

    Attributes:
      vector: [n] of norm 1; zeros where the matrix is zero.
      value: the eigenvalue.
      info: how the search ended; `steps` counts products.
    """

    vector: Float[np.ndarray, " n"]
    value: float
    info: SolveInfo


def top_eigenvector(
    key: Key[Array, ""],
    product: Callable[[Float[np.ndarray, " n"]], Any],
    n: int,
    *,
    tol: float,
    max_steps: int,
) -> TopEigenvector:
    """Returns the largest eigenvalue λ of a positive semi-definite M [n, n], and its eigenvector u.

    M u = λ u, by the Lanczos method with full reorthogonalisation, in float64 on the host.

    Args:
      key: of the vector that the search begins with.
      product: u -> M u, finite.
      n: the number of rows.
      tol: wanted ‖M u - λ u‖ / λ.
      max_steps: the most steps; a product each, and one before and one after; as many vectors of n
        numbers are held.

    Returns:
      The pair and how the search ended. Of a matrix A Aᵀ of rows a_i, λ u_i² is the squared
      projection of a_i on the direction along which the rows spread most.

    Example:
      rows = np.asarray(x, np.float64)
      settings = {"tol": 1e-6, "max_steps": 20}
      found = kernels.top_eigenvector(key, lambda u: rows @ (rows.T @ u), len(rows), **settings)
    """
    basis: list[np.ndarray] = []
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    w = np.asarray(product(np.asarray(jax.random.normal(key, (n,)), np.float64)), np.float64)
    size = np.linalg.norm(w)
    if size == 0:  # as of a single row that is centred
        return TopEigenvector(np.zeros(n), 0.0, _info(0.0, 1, tol))
    while True:
        q = w / size
        basis.append(q)
        w = np.asarray(product(q), np.float64)
        diagonal.append(float(q @ w))
        values, vectors = eigh_tridiagonal(np.array(diagonal), np.array(off_diagonal))
        held = np.stack(basis)
        for _ in range(2):  # once leaves what rounding brings back
            w = w - (held @ w) @ held
        size = np.linalg.norm(w)
        error = size * abs(vectors[-1, -1])
        if error <= tol / 2 * values[-1] or len(basis) == min(n, max_steps):
            break
        off_diagonal.append(float(size))
    u, value = vectors[:, -1] @ held, values[-1]
    residual = np.linalg.norm(np.asarray(product(u), np.float64) - value * u) / value
    return TopEigenvector(u, float(value), _info(residual, len(basis) + 2, tol))


def _info(residual: float, products: int, tol: float) -> SolveInfo:
    return SolveInfo(
        jnp.asarray(residual, jnp.float32),
        jnp.asarray(products),
        jnp.asarray(residual <= tol),
        jnp.asarray(jnp.nan),
    )
