"""The direction along which a group of examples spreads most, found by products alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.base import SolveInfo
from unlearnkit.kernels import top_eigenvector
from unlearnkit.training import DivergedError


def spread_scores(
    key: Key[Array, ""],
    product: Callable[[Float[np.ndarray, " n"]], Any],
    n: int,
    *,
    tol: float,
    max_steps: int,
) -> tuple[Float[np.ndarray, " n"], SolveInfo]:
    """Returns the squared projections on the top right singular vector of A [n, p].

    (a_i·v)² = σ² u_i² with A = U S Vᵀ. They are found from the top eigenvector u of A Aᵀ [n, n], so
    that no vector is longer than n, whatever p is.

    Args:
      key: of the vector that the search begins with.
      product: u -> A Aᵀ u.
      n: the number of rows.
      tol: wanted ‖A Aᵀ u - σ² u‖ / σ².
      max_steps: see `top_eigenvector`.

    Returns:
      [n] scores, and how the search ended.

    Raises:
      DivergedError: a product is not finite.
    """

    def finite_product(u: Float[np.ndarray, " n"]) -> np.ndarray:
        image = np.asarray(product(u), np.float64)
        if not np.all(np.isfinite(image)):
            raise DivergedError(
                "a row is not finite; train the network again, its weights diverged"
            )
        return image

    top = top_eigenvector(key, finite_product, n, tol=tol, max_steps=max_steps)
    return top.value * top.vector**2, top.info
