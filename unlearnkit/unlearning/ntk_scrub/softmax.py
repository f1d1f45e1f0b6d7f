"""Softmax regression on the features of a linearised network, by Newton's method and CG."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from unlearnkit import kernels
from unlearnkit.base import Params, SolveInfo

INNER_TOL = 1e-2
"""Relative residual of each Newton system: two digits per step."""
HALVINGS = 20
"""Of the step, at most, in the line search."""


class Optimum(NamedTuple):
    """Where Newton's method ended.

    Attributes:
      step: the way from the start.
      displacement: from the centre of the decay.
      outputs: [n, c] of the linearised network there.
      info: the residual is ‖gradient‖ relative to the norms of its two parts; the steps are
        products with Jᵀ B J or their like, over all systems.
    """

    step: Params
    displacement: Params
    outputs: Float[Array, "n c"]
    info: SolveInfo


class _State(NamedTuple):
    step: Params
    displacement: Params
    outputs: Array
    gradient: Params
    residual: Float[Array, ""]
    curvature: Float[Array, ""]
    products: Int[Array, ""]
    newton: Int[Array, ""]
    go: Bool[Array, ""]


def newton_cg(
    push: Callable[[Params], Array],
    pull: Callable[[Array], Params],
    outputs: Float[Array, "n c"],
    displacement: Params,
    *,
    targets: Float[Array, "n c"],
    weights: Float[Array, "n 1"],
    settings: Any,
) -> Optimum:
    """Returns the minimum of a linearised network's ridge-regularised cross-entropy.

    Σ_i weights_i CE(outputs_i + (J d)_i, targets_i) + (λ/2)‖displacement + d‖²   over d

    Each Newton system (Jᵀ B J + λ) Δ = -g is solved by CG, its step halved until the loss falls
    enough.

    Args:
      push: v -> J v [n, c].
      pull: u [n, c] -> Jᵀ u.
      outputs: of the linearised network at the start.
      displacement: from the centre of the decay to the start.
      targets: one-hot.
      weights: of the examples.
      settings: `weight_decay` λ, `tol`, `max_steps` of CG a system, and `newton_steps`.
    """
    decay = settings.weight_decay

    def gradient(outputs: Array, displacement: Params) -> tuple[Params, Array]:
        of_loss = pull(weights * (jax.nn.softmax(outputs) - targets))
        of_decay = optax.tree.scale(decay, displacement)
        total = optax.tree.add(of_loss, of_decay)
        size = kernels.tree_norm(of_loss) + kernels.tree_norm(of_decay)
        return total, kernels.tree_norm(total) / jnp.where(size > 0, size, 1)

    def value(outputs: Array, displacement: Params) -> Array:
        losses = jax.nn.logsumexp(outputs, axis=1) - jnp.sum(targets * outputs, axis=1)
        square = optax.tree.vdot(displacement, displacement)
        found: Array = jnp.sum(weights[:, 0] * losses) + decay / 2 * square
        return found

    def body(state: _State) -> _State:
        p = jax.nn.softmax(state.outputs)

        def product(v: Params) -> Params:
            u = push(v)
            return pull(weights * p * (u - jnp.sum(p * u, axis=1, keepdims=True)))

        descent = optax.tree.scale(-1.0, state.gradient)
        direction, info = kernels.cg(
            product, descent, damping=decay, tol=INNER_TOL, max_steps=settings.max_steps
        )
        pushed = push(direction)
        slope = optax.tree.vdot(state.gradient, direction)
        before = value(state.outputs, state.displacement)
        slack = 10 * jnp.finfo(before.dtype).eps * jnp.abs(before)

        def too_long(search: tuple[Array, Array]) -> Array:
            t, halvings = search
            after = value(
                state.outputs + t * pushed, optax.tree.add_scale(state.displacement, t, direction)
            )
            found: Array = ~(after <= before + 1e-4 * t * slope + slack) & (halvings < HALVINGS)
            return found

        t, halvings = jax.lax.while_loop(
            too_long, lambda s: (s[0] / 2, s[1] + 1), (jnp.ones_like(before), jnp.asarray(0))
        )
        displacement = optax.tree.add_scale(state.displacement, t, direction)
        outputs = state.outputs + t * pushed
        next_gradient, residual = gradient(outputs, displacement)
        return _State(
            step=optax.tree.add_scale(state.step, t, direction),
            displacement=displacement,
            outputs=outputs,
            gradient=next_gradient,
            residual=residual,
            curvature=jnp.fmin(state.curvature, info.curvature),
            products=state.products + info.steps + 2,  # the solve's own check; a push and a pull
            newton=state.newton + 1,
            go=halvings < HALVINGS,
        )

    def proceed(state: _State) -> Array:
        found: Array = (
            state.go & (state.residual > settings.tol) & (state.newton < settings.newton_steps)
        )
        return found

    first, residual = gradient(outputs, displacement)
    start = _State(
        step=optax.tree.zeros_like(displacement),
        displacement=displacement,
        outputs=outputs,
        gradient=first,
        residual=residual,
        curvature=jnp.full_like(residual, jnp.nan),
        products=jnp.asarray(0),
        newton=jnp.asarray(0),
        go=jnp.asarray(True),
    )
    end = jax.lax.while_loop(proceed, body, start)
    info = SolveInfo(end.residual, end.products, end.residual <= settings.tol, end.curvature)
    return Optimum(end.step, end.displacement, end.outputs, info)
