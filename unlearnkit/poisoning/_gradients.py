"""The mean gradient over poisons, and the derivative in the poisons of what is made of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from unlearnkit.base import Dataset, Model, Params, Variables
from unlearnkit.kernels import map_batches, risk_gradient, tree_norm
from unlearnkit.training import cross_entropy

Judge = Callable[[Params], Float[Array, ""]]


@partial(jax.jit, static_argnames=("model", "chunk"))
def mean_gradient(
    model: Model,
    variables: Variables,
    x: Float[Array, "m ..."],
    y: Int[Array, " m"],
    *,
    chunk: int,
) -> Params:
    """Returns 1/m Σ_i ∇_w CE(w; x_i, y_i), evaluation mode, `chunk` examples at a time."""

    def loss(params: Params, x: Array, y: Array) -> Array:
        return cross_entropy(model.apply(Variables(params, variables.state), x), y)

    return risk_gradient(loss, variables.params, Dataset(x, y), chunk=chunk)


def judge_gradient(
    judge: Judge,
    model: Model,
    variables: Variables,
    x: Float[Array, "m ..."],
    y: Int[Array, " m"],
    *,
    chunk: int,
) -> tuple[Float[Array, ""], Float[Array, "m ..."]]:
    """Returns J(g) of the mean gradient g over the poisons, and its derivative in each poison.

    ∂J/∂x_i = 1/m ∂/∂x_i <v, ∇_w CE(w; x_i, y_i)>,   v = ∇J(g)

    v is the same for all poisons, so that they are taken a chunk at a time in both passes: three
    example-gradients per poison, and the memory of one chunk.

    Args:
      judge: J, of a gradient like `variables.params`.
      model: the network.
      variables: where.
      x: poisons.
      y: their labels.
      chunk: poisons at a time; does not change the result beyond rounding.
    """
    m = x.shape[0]
    gradient = mean_gradient(model, variables, x, y, chunk=chunk)
    value, way = jax.value_and_grad(judge)(gradient)

    def along(x: Array, arguments: tuple[Params, Params], y: Array) -> Array:
        params, way = arguments

        def loss(w: Params) -> Array:
            return cross_entropy(model.apply(Variables(w, variables.state), x), y)

        found: Array = optax.tree.vdot(way, jax.grad(loss)(params)) * (x.shape[0] / m)
        return found

    def part(arguments: tuple[Params, Params], x: Array, y: Array) -> Array:
        found: Array = jax.grad(along)(x, arguments, y)
        return found

    return value, map_batches(part, (variables.params, way), (x, y), chunk)


def cosine_distance(gradient: Params, target: Params) -> Float[Array, ""]:
    """Returns 1 - <g, t> / (‖g‖ ‖t‖); 1 where either is 0."""
    # The cosine does not depend on the lengths; near 1 no square vanishes or overflows.
    gradient, target = (
        optax.tree.scale(1 / jax.lax.stop_gradient(_positive(tree_norm(vector))), vector)
        for vector in (gradient, target)
    )
    sizes = []
    for vector in (gradient, target):
        square = optax.tree.vdot(vector, vector)
        # The root has no derivative at 0.
        sizes.append(jnp.sqrt(jnp.where(square > 0, square, jnp.inf)))
    found: Array = 1 - optax.tree.vdot(gradient, target) / sizes[0] / sizes[1]
    return found


def _positive(size: Array) -> Array:
    return jnp.where(size > 0, size, 1)
