"""Softmax regression on the features of a linearised network, by Newton's method and CG."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from unlearnkit import kernels
from unlearnkit.base import SolveInfo
from unlearnkit.kernels._chunks import sum_batches
from unlearnkit.unlearning.ntk_scrub.products import Space, Vector

INNER_TOL = 0.1
"""Relative residual of each Newton system: one digit per step, since the first steps are far from
the minimum and most of the products would be theirs."""
DUAL_TOL = 1e-4
"""Of its dual system, whose residual is that of the outputs and not of the weights: at 1e-2 its
directions are not good enough for Newton's method."""
DUAL_SHIFT = 1.0
"""What stands for the rest of the spectrum in its preconditioner, in units of λ."""
SKETCH_ROWS = 512
"""Examples at a time whose rows of the sketch are weighted."""
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
      error: ‖gradient‖ / λ, the furthest that the minimum can be away.
      newton: Newton steps.
    """

    step: Vector
    displacement: Vector
    outputs: Float[Array, "n c"]
    info: SolveInfo
    error: Float[Array, ""]
    newton: Int[Array, ""]


class _State(NamedTuple):
    step: Vector
    displacement: Vector
    outputs: Array
    gradient: Vector
    residual: Float[Array, ""]
    curvature: Float[Array, ""]
    products: Int[Array, ""]
    newton: Int[Array, ""]
    go: Bool[Array, ""]


def newton_cg(
    space: Space,
    outputs: Float[Array, "n c"],
    displacement: Vector,
    *,
    targets: Float[Array, "n c"],
    weights: Float[Array, "n 1"],
    settings: Any,
    sketch: Float[Array, "nc rank"] | None = None,
) -> Optimum:
    """Returns the minimum of a linearised network's ridge-regularised cross-entropy.

    Σ_i weights_i CE(outputs_i + (J d)_i, targets_i) + (λ/2)‖displacement + d‖²   over d

    Each Newton system (Jᵀ B J + λ) Δ = -g is solved by CG, its step halved until the loss falls
    enough; without a sketch in the space as it is, with one by `_by_dual`.

    Args:
      space: of the weights, with the products with J.
      outputs: of the linearised network at the start.
      displacement: from the centre of the decay to the start, a vector of `space`.
      targets: one-hot.
      weights: of the examples.
      settings: `weight_decay` λ, `tol`, `max_steps` of CG a system, and `newton_steps`.
      sketch: F with F Fᵀ near Θ, for the preconditioner.
    """
    decay = settings.weight_decay
    dot = optax.tree.vdot if space.inner is None else space.inner

    def norm(vector: Vector) -> Array:
        return kernels.tree_norm(vector, dot)

    def gradient(outputs: Array, displacement: Vector) -> tuple[Vector, Array]:
        of_loss = space.pull(weights * (jax.nn.softmax(outputs) - targets))
        of_decay = optax.tree.scale(decay, displacement)
        total = optax.tree.add(of_loss, of_decay)
        size = norm(of_loss) + norm(of_decay)
        return total, norm(total) / jnp.where(size > 0, size, 1)

    def value(outputs: Array, displacement: Vector) -> Array:
        losses = jax.nn.logsumexp(outputs, axis=1) - jnp.sum(targets * outputs, axis=1)
        square = dot(displacement, displacement)
        found: Array = jnp.sum(weights[:, 0] * losses) + decay / 2 * square
        return found

    def body(state: _State) -> _State:
        p = jax.nn.softmax(state.outputs)
        if sketch is None:
            direction, info = _in_space(space, weights, p, state.gradient, settings)
        else:
            direction, info = _by_dual(space, weights, p, state.gradient, settings, sketch)
        pushed = space.push(direction)
        slope = dot(state.gradient, direction)
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
    error = norm(end.gradient) / decay
    return Optimum(end.step, end.displacement, end.outputs, info, error, end.newton)


def _in_space(
    space: Space, weights: Array, p: Array, gradient: Vector, settings: Any
) -> tuple[Vector, SolveInfo]:
    """Returns Δ of (Jᵀ B J + λ) Δ = -g by CG on the weights, in their inner product."""

    def product(v: Vector) -> Vector:
        u = space.near_push(v)
        return space.near_pull(weights * p * (u - jnp.sum(p * u, axis=1, keepdims=True)))

    return kernels.cg(
        product,
        optax.tree.scale(-1.0, gradient),
        damping=settings.weight_decay,
        tol=INNER_TOL,
        max_steps=settings.max_steps,
        inner=space.inner,
    )


def _by_dual(
    space: Space, weights: Array, p: Array, gradient: Vector, settings: Any, sketch: Array
) -> tuple[Vector, SolveInfo]:
    """Returns Δ of (Jᵀ B J + λ) Δ = -g by preconditioned CG on [n, c].

    Δ = -(g + Jᵀ C z) / λ,   (Cᵀ Θ C + λ) z = -Cᵀ J g,   B = C Cᵀ

    by Woodbury's identity, with C = √w (diag(√p) - p √pᵀ) for each example: for B = w (diag(p) -
    p pᵀ) that is a root of it.
    """
    root, weight, decay = jnp.sqrt(p), jnp.sqrt(weights), settings.weight_decay

    def c(z: Array) -> Array:
        return weight * (root * z - p * jnp.sum(root * z, axis=1, keepdims=True))

    def c_transposed(u: Array) -> Array:
        return weight * root * (u - jnp.sum(p * u, axis=1, keepdims=True))

    def product(z: Array) -> Array:
        return c_transposed(space.near_theta(c(z)))

    def of_rows(_: None, rows: Array, p: Array, weight: Array) -> Array:
        mean = jnp.einsum("nc,ncr->nr", p, rows)
        found = (weight * jnp.sqrt(p))[:, :, None] * (rows - mean[:, None])
        flat = found.reshape(-1, found.shape[-1])
        return flat.T @ flat

    rows = sketch.reshape(*p.shape, -1)
    gram = sum_batches(of_rows, None, (rows, p, weight), SKETCH_ROWS)
    shift = DUAL_SHIFT * decay
    lower = jnp.linalg.cholesky(gram + shift * jnp.eye(len(gram), dtype=gram.dtype))

    def precondition(r: Array) -> Array:
        inner = jax.scipy.linalg.cho_solve((lower, True), sketch.T @ c(r).reshape(-1))
        found: Array = (r - c_transposed((sketch @ inner).reshape(r.shape))) / shift
        return found

    z, info = kernels.cg(
        product,
        -c_transposed(space.near_push(gradient)),
        damping=decay,
        tol=DUAL_TOL,
        max_steps=settings.max_steps,
        preconditioner=precondition,
    )
    step = optax.tree.add(gradient, space.near_pull(c(z)))
    return optax.tree.scale(-1 / decay, step), info._replace(steps=info.steps + 1)
