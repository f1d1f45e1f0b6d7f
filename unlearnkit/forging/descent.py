"""Adam on what a forger may change, the best point kept."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


@runtime_checkable
class Search(Protocol):
    """What is descended; a hashable value, so that it can be a static argument."""

    def realise(self, point: Any, context: Any) -> Any:
        """Returns the point of the domain that `point` stands for."""
        ...

    def confine(self, point: Any, context: Any) -> Any:
        """Returns the nearest point at which the next step may begin."""
        ...

    def objective(self, realised: Any, context: Any) -> tuple[Array, Array]:
        """Returns what is descended, and what the best point is least in."""
        ...


@partial(jax.jit, static_argnames=("search", "iterations"))
def adam(
    search: Search, start: Any, context: Any, *, learning_rate: float | Array, iterations: int
) -> tuple[Any, Float[Array, " iterations"]]:
    """Returns the best realised point of a run of Adam, and the errors of all.

    Each gradient is taken at the realised point and applied to the point behind it, so that steps
    smaller than a grid add up. β₁ = .9, β₂ = .999, ε = 1e-8.

    Args:
      search: what is descended, and over what.
      start: a pytree of arrays.
      context: passed on.
      learning_rate: α.
      iterations: how many points are looked at, the start first.
    """
    optimizer = optax.adam(learning_rate)

    def advance(carry: tuple[Any, Any, Any, Array], _: None) -> tuple[Any, Array]:
        point, memory, best, least = carry
        realised = search.realise(point, context)
        slope, error = jax.grad(search.objective, has_aux=True)(realised, context)
        better = error < least
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), realised, best)
        updates, memory = optimizer.update(slope, memory)
        point = search.confine(optax.apply_updates(point, updates), context)
        return (point, memory, best, jnp.where(better, error, least)), error

    begin = search.confine(start, context)
    carry = (begin, optimizer.init(begin), search.realise(begin, context), jnp.array(jnp.inf))
    (_, _, best, _), errors = jax.lax.scan(advance, carry, None, length=iterations)
    return best, errors
