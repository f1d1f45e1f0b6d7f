"""The direction along which a group of examples spreads most, found by products alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.linalg import eigh_tridiagonal

from unlearnkit.base import SolveInfo
from unlearnkit.training import DivergedError


class Leading(NamedTuple):
    """How far each example lies along the direction of the largest spread.

    Attributes:
      scores: [n] squared projections (a_i·v)², v the top right singular vector of the rows a_i.
      info: how the search ended; `steps` counts products.
    """

    scores: Float[np.ndarray, " n"]
    info: SolveInfo


def leading(
    key: Key[Array, ""],
    product: Callable[[Float[np.ndarray, " n"]], Any],
    n: int,
    *,
    tol: float,
    max_steps: int,
) -> Leading:
    """Returns the squared projections on the top right singular vector of A [n, p].

    With A = U S Vᵀ, A v = σ u: the projections are those of the top eigenvector u of A Aᵀ [n, n],
    times σ. It is found by the Lanczos method with full reorthogonalisation, in float64 on the
    host, so no vector is longer than n, whatever p is.

    Args:
      key: of the vector that the search begins with.
      product: u -> A Aᵀ u.
      n: the number of rows.
      tol: wanted ‖A Aᵀ u - σ² u‖ / σ².
      max_steps: the most steps; a product each, and one before and one after; as many vectors of n
        numbers are held.

    Raises:
      DivergedError: a product is not finite.
    """
    basis: list[np.ndarray] = []
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    w = _finite(product(np.asarray(jax.random.normal(key, (n,)), np.float64)))
    size = np.linalg.norm(w)
    if size == 0:  # rows that are all zero, as one centred row is
        return Leading(np.zeros(n), _info(0.0, 1, tol))
    while True:
        q = w / size
        basis.append(q)
        w = _finite(product(q))
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
    residual = np.linalg.norm(_finite(product(u)) - value * u) / value
    return Leading(value * u**2, _info(residual, len(basis) + 2, tol))


def _finite(vector: Any) -> np.ndarray:
    found = np.asarray(vector, np.float64)
    if not np.all(np.isfinite(found)):
        raise DivergedError("a row is not finite; train the network again, its weights diverged")
    return found


def _info(residual: float, products: int, tol: float) -> SolveInfo:
    return SolveInfo(
        jnp.asarray(residual, jnp.float32),
        jnp.asarray(products),
        jnp.asarray(residual <= tol),
        jnp.asarray(jnp.nan),
    )
