"""Queries that are crafted so that their answers tell the most."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from unlearnkit.auditing.information import (
    GaussianWeights,
    jacobian_rows,
    noise_root,
    query_information,
)
from unlearnkit.base import Model, Variables
from unlearnkit.validation import check_variables

_JITTER = 1e-5
"""Of a covariance in float32, relative to its mean variance, while it is ascended."""


class CraftedQueries(NamedTuple):
    """Queries and what they tell.

    Attributes:
      x: [n, ...] the crafted queries.
      information: bound on what each answer tells, nats; see `query_information`.
      before: the same of the queries that were begun with.
    """

    x: Float[Array, "n ..."]
    information: Float[np.ndarray, " n"]
    before: Float[np.ndarray, " n"]


class _Side(NamedTuple):
    variables: Variables
    root: Array


def craft_queries(
    model: Model,
    scrubbed: GaussianWeights,
    reference: GaussianWeights,
    x: Float[Array, "n ..."],
    *,
    radius: float,
    steps: int = 40,
    bounds: tuple[float, float] | None = None,
    damping: float = 0.0,
) -> CraftedQueries:
    """Returns queries near `x` whose answers tell scrubbed and reference weights apart the best.

    x <- x + η_t g / ‖g‖,   g = ∇_x KL(N(f_h(x), J Σ Jᵀ) ‖ N(f_r(x), J₀ Σ₀ J₀ᵀ))

    projected to the ball of L2 `radius` around each, with lengths η_t that fall linearly to 0. Of
    all that were passed the most telling is kept, so that none tells less than where it began. It
    is the attacker of the paper's warning, who knows both networks: small J₀ at a query makes much
    of a small difference of the answers.

    Args:
      model: the network, whose Jacobian is differentiated in its inputs.
      scrubbed: h(w) and Σ.
      reference: w_r and Σ₀.
      x: the queries to begin with, as the forget set's.
      radius: of the ball, in units of the inputs.
      steps: of the ascent.
      bounds: least and largest value of an input, None for any.
      damping: see `query_information`.

    Raises:
      ValueError: a radius or steps that are not positive, bounds in the wrong order, integer
        inputs, or whatever `query_information` refuses.

    Example:
      noisy = [auditing.GaussianWeights(v, 1e-4) for v in (scrubbed, retrained)]
      found = auditing.craft_queries(model, *noisy, task.forget.x, radius=1.0)
      gain = found.information / found.before

    Source: Golatkar et al. 2020b, §3.3, adversarial queries, and figure 3, right; the way of
    crafting is ours.
    """
    _check(model, scrubbed, reference, x, radius, steps, bounds)
    before = query_information(model, scrubbed, reference, x, damping=damping)
    sides = [
        _Side(side.variables, jnp.asarray(noise_root(side), jnp.float32))
        for side in (scrubbed, reference)
    ]
    climb = partial(_climb, begun=x, model=model, bounds=bounds)
    best = jnp.asarray(x), jnp.full(len(x), -jnp.inf)
    now = jnp.asarray(x)
    for step in range(steps):
        length = 4 * radius / steps * (1 - step / steps)
        now, best = climb(now, best, *sides, length, radius, damping)
    crafted, _ = climb(now, best, *sides, 0.0, radius, damping)[1]
    after = query_information(model, scrubbed, reference, crafted, damping=damping)
    better = after > before
    kept = jnp.where(better.reshape(-1, *(1,) * (crafted.ndim - 1)), crafted, x)
    return CraftedQueries(kept, np.where(better, after, before), before)


@partial(jax.jit, static_argnames=("model", "bounds"))
def _climb(
    now: Array,
    best: tuple[Array, Array],
    one: _Side,
    other: _Side,
    length: Array | float,
    radius: Array | float,
    damping: Array | float,
    *,
    begun: Array,
    model: Model,
    bounds: tuple[float, float] | None,
) -> tuple[Array, tuple[Array, Array]]:
    """Returns the next queries, and the most telling up to now with what they tell."""

    def told(x: Array) -> Array:
        return _divergence(x, one, other, damping, model)

    values, slopes = jax.vmap(jax.value_and_grad(told))(now)
    flat = slopes.reshape(len(now), -1)
    sizes = jnp.linalg.norm(flat, axis=1, keepdims=True)
    usable = jnp.isfinite(sizes) & (sizes > 0)
    moved = jnp.where(usable, length * flat / jnp.where(usable, sizes, 1), 0)
    away = (now - begun).reshape(moved.shape) + moved
    reach = jnp.linalg.norm(away, axis=1, keepdims=True)
    away = away * jnp.minimum(1, radius / jnp.maximum(reach, jnp.finfo(away.dtype).tiny))
    found = begun + away.reshape(now.shape)
    found = found if bounds is None else jnp.clip(found, *bounds)
    better = values > best[1]
    kept = jnp.where(better.reshape(-1, *(1,) * (now.ndim - 1)), now, best[0])
    return found, (kept, jnp.where(better, values, best[1]))


def _divergence(x: Array, one: _Side, other: _Side, damping: Array | float, model: Model) -> Array:
    """Returns `gaussian_kl` of the answers to one query, so that it can be differentiated."""
    c = model.n_classes
    shift = model.apply(one.variables, x[None])[0] - model.apply(other.variables, x[None])[0]
    factors = []
    for side in (one, other):
        rows = jacobian_rows(side.variables, x[None], model=model)[0]
        rows = rows @ side.root if side.root.ndim == 2 else rows * side.root
        sigma = jnp.matmul(rows, rows.T, precision="highest")
        jitter = damping + _JITTER * jnp.trace(sigma) / c
        factors.append(jnp.linalg.cholesky(sigma + jitter * jnp.eye(c)))
    lower, lower_0 = factors
    columns = jnp.concatenate([shift[:, None], lower], axis=1)
    whitened = jax.scipy.linalg.solve_triangular(lower_0, columns, lower=True)
    ratio = jnp.sum(jnp.log(jnp.diag(lower)) - jnp.log(jnp.diag(lower_0)))
    return 0.5 * (jnp.sum(whitened**2) - c) - ratio


def _check(
    model: Model,
    scrubbed: GaussianWeights,
    reference: GaussianWeights,
    x: Array,
    radius: float,
    steps: int,
    bounds: tuple[float, float] | None,
) -> None:
    for weights in (scrubbed, reference):
        check_variables(weights.variables, model)
    if not radius > 0 or steps < 1:
        raise ValueError(f"radius must be > 0 and steps >= 1, got {radius} and {steps}")
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"bounds must be (least, largest), got {bounds}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"queries are crafted by gradients and must be floats, got {x.dtype}")
