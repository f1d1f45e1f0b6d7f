"""Moves along the normalised gradient, each projected back into the bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unlearnkit.poisoning.bounds import Region


def climb(
    objective: Callable[[Array], tuple[Array, Any]],
    x: Float[Array, "g ..."],
    region: Region,
    *,
    steps: int,
    step_size: float,
) -> tuple[Float[Array, "g ..."], tuple[Float[Array, " steps"], Any]]:
    """Returns the points after `steps` moves, and the objective and its extra output before each.

    x_i <- Π(x_i + step_size g_i / ‖g_i‖)

    Args:
      objective: x -> (what is ascended, auxiliary output).
      x: where the points are.
      region: where they may lie.
      steps: moves.
      step_size: length of a move of one point before the projection, in units of the network.
    """

    def move(x: Array, _: None) -> tuple[Array, tuple[Array, Any]]:
        aux, gradient = jax.value_and_grad(objective, has_aux=True)(x)
        size = jnp.sqrt((gradient.reshape(x.shape[0], -1) ** 2).sum(1))
        size = jnp.where(size > 0, size, 1).reshape(-1, *(1,) * (x.ndim - 1))
        return region.project(x + step_size * gradient / size), aux

    return jax.lax.scan(move, x, length=steps)
