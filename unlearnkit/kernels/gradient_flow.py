"""What gradient flow makes of the outputs of a network that is linear in its weights.

    df/dt = - Θ ∂L/∂f at the examples,   df*/dt = - Θ* ∂L/∂f elsewhere

with Θ the tangent kernel of the examples and Θ* that of other inputs with them. For the squared
error the solution is closed; for any other loss it is integrated, and the weights with it. Time is
learning rate times steps of gradient descent on the mean loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from unlearnkit.base import Params
from unlearnkit.kernels._trees import Inputs, Precision, at_precision
from unlearnkit.kernels.curvature import Apply, jacobian_transpose_vp
from unlearnkit.kernels.ntk_operators import ntk_operator

Kernel: TypeAlias = Array | Callable[[Array], Array]
"""[n1, c, n2, c], or [n1, n2] alike for every output, or its product with outputs [n2, c]."""


class SquaredErrorFlow(NamedTuple):
    """Gradient flow of 1/(2n) Σ_i ‖f_i - y_i‖², solved for any time.

    f(t) = f(0) - Θ u,   f*(t) = f*(0) - Θ* u,
    u = (Θ + δ I)⁻¹ (I - exp(-t (Θ + δ I) / n)) (f(0) - y)

    with δ the damping: without it f(t) = y + exp(-t Θ / n) (f(0) - y).

    Attributes:
      values: eigenvalues of Θ, ascending, of all outputs or of each alike.
      vectors: its eigenvectors, in columns.
      targets: y [n, ...].
      damping: see `squared_error_flow`.
    """

    values: Float[Array, " m"]
    vectors: Float[Array, "m m"]
    targets: Float[Array, "n ..."]
    damping: Float[Array, ""]

    @at_precision
    def at_examples(
        self,
        time: Array | float,
        start: Float[Array, "n ..."],
        *,
        precision: Precision = "highest",
    ) -> Array:
        """Returns f(time) from f(0) = start; `time` may be infinite.

        Args:
          time: learning rate times steps, >= 0.
          start: outputs of the examples at time 0, like the targets.
          precision: of the matrix products; see `Precision`.
        """
        return start - self._apply(self.values * self._moved(time), start - self.targets)

    @at_precision
    def at_inputs(
        self,
        time: Array | float,
        start: Float[Array, "n ..."],
        elsewhere: Float[Array, "m ..."],
        cross: Kernel,
        *,
        precision: Precision = "highest",
    ) -> Array:
        """Returns f*(time) at other inputs.

        Args:
          time: learning rate times steps, >= 0; may be infinite.
          start: outputs of the examples at time 0.
          elsewhere: outputs of the other inputs at time 0.
          cross: Θ* of the other inputs with the examples: dense, as `empirical_ntk(apply, params,
            other, x)`, or a product, as `cross_ntk_operator`.
          precision: of the matrix products; see `Precision`.
        """
        pulled = self._apply(self._moved(time), start - self.targets)
        return elsewhere - _multiply(cross, pulled)

    def _moved(self, time: Array | float) -> Array:
        """Returns (1 - exp(-t λ / n)) / λ for each eigenvalue λ, damped."""
        n, damped = self.targets.shape[0], self.values + self.damping
        eps = jnp.finfo(damped.dtype).eps * len(damped) * jnp.max(jnp.abs(damped))
        alive = damped > eps
        safe = jnp.where(alive, damped, 1)
        time = jnp.asarray(time, damped.dtype)
        moved = -jnp.expm1(-time * safe / n) / safe
        # Of an eigenvalue that is rounding the limit; none where that is infinite.
        return jnp.where(alive, moved, jnp.where(jnp.isfinite(time), time / n, 0))

    def _apply(self, factors: Array, outputs: Array) -> Array:
        columns = outputs.reshape(len(self.values), -1)
        found: Array = self.vectors @ (factors[:, None] * (self.vectors.T @ columns))
        return found.reshape(outputs.shape)


@at_precision
def squared_error_flow(
    kernel: Float[Array, "n ..."],
    targets: Float[Array, "n ..."],
    *,
    damping: Array | float = 0.0,
    precision: Precision = "highest",
) -> SquaredErrorFlow:
    """Returns gradient flow of the squared error 1/(2n) Σ_i ‖f_i - y_i‖², solved for all times.

    One eigendecomposition. At infinite time and damping 0 it is kernel regression on what f(0)
    leaves.

    Args:
      kernel: Θ: [n, c, n, c] of `empirical_ntk` for targets [n, c], or [n, n] alike for every
        output, as `pseudo_ntk` and kernels of infinite width.
      targets: y [n, ...].
      damping: of a penalty damping / (2n) ‖w - w(0)‖² of the weights.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: the kernel does not belong to the targets, or `damping` < 0.

    Example:
      theta = kernels.empirical_ntk(apply, params, x)
      flow = kernels.squared_error_flow(theta, jax.nn.one_hot(y, 3))
      outputs = flow.at_examples(100.0, apply(params, x))  # after 1,000 steps of 0.1

    Source: Lee et al. 2019, Wide neural networks of any depth evolve as linear models under
    gradient descent, equations (8) to (11).
    """
    n, total = len(targets), targets.size
    whole = kernel.shape == (*targets.shape, *targets.shape)
    if not whole and kernel.shape != (n, n):
        raise ValueError(
            f"kernel must be [n, c, n, c] or [n, n] for targets {targets.shape}, got {kernel.shape}"
        )
    if not isinstance(damping, jax.core.Tracer) and not damping >= 0:
        raise ValueError(f"damping must be >= 0, got {damping}")
    size = total if whole else n
    values, vectors = jnp.linalg.eigh(kernel.reshape(size, size))
    held = jnp.asarray(damping, values.dtype)
    return SquaredErrorFlow(jnp.maximum(values, 0), vectors, targets, held)


@at_precision
def gradient_flow(
    kernel: Kernel,
    loss: Callable[[Array], Array],
    start: Float[Array, "n ..."],
    times: Float[Array, " t"],
    *,
    elsewhere: Float[Array, "m ..."] | None = None,
    cross: Kernel | None = None,
    weight_decay: float = 0.0,
    tol: float = 1e-5,
    precision: Precision = "highest",
) -> tuple[Float[Array, "t n ..."], Float[Array, "t m ..."] | None]:
    """Returns the outputs under gradient flow of any loss, at the examples and elsewhere.

    df/dt = - Θ ∇L(f) - λ (f - f(0)), by an adaptive Runge-Kutta method (Dormand and Prince) whose
    steps are some two over the largest eigenvalue of Θ ∂²L. `squared_error_flow` is exact where it
    applies.

    Args:
      kernel: Θ of the examples: [n, c, n, c], [n, n] alike for every output, or a product v -> Θ v,
        as `ntk_operator`, with which nothing is stored.
      loss: L of the outputs [n, ...] -> scalar, a mean over examples.
      start: f(0).
      times: where the outputs are wanted, ascending; learning rate times steps.
      elsewhere: f*(0) at other inputs, or None.
      cross: Θ* of the other inputs with the examples, like `kernel`.
      weight_decay: λ of a penalty (λ/2)‖w - w(0)‖² of the weights.
      tol: relative and absolute, of a step.
      precision: of the matrix products; see `Precision`.

    Returns:
      f and f* at each time.

    Raises:
      ValueError: one of `elsewhere` and `cross` without the other, `times` that are no list, or
        `weight_decay` < 0.

    Example:
      theta = kernels.ntk_operator(apply, params, x, damping=0.0)
      loss_of = lambda outputs: kernels.cross_entropy_losses(outputs, y).mean()
      f, _ = kernels.gradient_flow(theta, loss_of, apply(params, x), jnp.array([0.0, 1.0]))

    Source: Lee et al. 2019, equations (5) and (6).
    """
    from jax.experimental.ode import odeint

    if (elsewhere is None) != (cross is None):
        raise ValueError("elsewhere and cross belong together: give both, or none")
    if times.ndim != 1:
        raise ValueError(f"times must be [t], got {times.shape}")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must be >= 0, got {weight_decay}")
    slope = jax.grad(loss)
    states = (start,) if elsewhere is None else (start, elsewhere)
    parts = [part for part in (kernel, cross) if part is not None]

    def move(state: tuple[Array, ...], time: Array) -> tuple[Array, ...]:
        gradient = slope(state[0])
        return tuple(
            -_multiply(part, gradient) - weight_decay * (now - begun)
            for part, now, begun in zip(parts, state, states, strict=True)
        )

    # The method's first time is that of `start`.
    all_times = jnp.concatenate([jnp.zeros(1, times.dtype), times])
    found = odeint(move, states, all_times, rtol=tol, atol=tol)

    def at_times(begun: Array, moved: Array) -> Array:
        moved = moved[1:]
        # Between equal times there is no step to interpolate in.
        still = (times == 0).reshape(-1, *(1,) * begun.ndim)
        return jnp.where(still, begun, moved)

    outputs = [at_times(begun, moved) for begun, moved in zip(states, found, strict=True)]
    return outputs[0], None if elsewhere is None else outputs[1]


@at_precision
def weight_flow(
    apply: Apply,
    params: Params,
    x: Inputs,
    loss: Callable[[Array], Array],
    times: Float[Array, " t"],
    *,
    weight_decay: float = 0.0,
    tol: float = 1e-5,
    chunk: int | None = None,
    precision: Precision = "highest",
) -> tuple[Params, Float[Array, "t n ..."]]:
    """Returns the weights of the linearised network under gradient flow, and its outputs.

    dw/dt = - Jᵀ ∇L(f) - λ (w - w(0)),   f = f(w(0)) + J (w - w(0)),   J at w(0) = params

    No kernel is stored. Training on all and on a part, each to its end, gives the shift of
    `unlearning.NtkScrub` with `linearise_at="pretrained"`.

    Args:
      apply: (params, x) -> outputs [n, ...], a row of its own input alone where `chunk` is given.
      params: w(0).
      x: [n, ...] inputs, an array or a pytree of arrays.
      loss: L of the outputs [n, ...] -> scalar, a mean over examples.
      times: when, ascending; learning rate times steps.
      weight_decay: λ of a penalty (λ/2)‖w - w(0)‖².
      tol: relative and absolute, of a step.
      chunk: inputs at a time in products; all where None.
      precision: of the products; see `Precision`.

    Returns:
      w like `params` with a leading axis of times, and f [t, n, ...] at each time.

    Raises:
      ValueError: see `gradient_flow` and `ntk_operator`.

    Example:
      loss_of = lambda outputs: kernels.cross_entropy_losses(outputs, y).mean()
      weights, f = kernels.weight_flow(apply, params, x, loss_of, jnp.array([1.0, 10.0]))

    Source: Golatkar et al. 2020b, equations (8) and (9).
    """
    theta = ntk_operator(apply, params, x, damping=0.0, chunk=chunk, precision=precision)
    flat, unravel = ravel_pytree(params)

    def pull(cotangent: Array) -> Array:
        pulled = jacobian_transpose_vp(
            apply, params, x, cotangent, chunk=chunk, precision=precision
        )
        return ravel_pytree(pulled)[0]

    outputs, weights = gradient_flow(
        theta, loss, apply(params, x), times, elsewhere=flat, cross=pull,
        weight_decay=weight_decay, tol=tol, precision=precision,
    )  # fmt: skip
    assert weights is not None
    return jax.vmap(unravel)(weights), outputs


def _multiply(kernel: Kernel, outputs: Array) -> Array:
    """Returns the product of a kernel with outputs [n, ...]."""
    if not isinstance(kernel, jax.Array):
        found: Array = kernel(outputs)
        return found
    if kernel.ndim == 2 and outputs.ndim > 1:
        return jnp.tensordot(kernel, outputs, axes=1)
    return jnp.tensordot(kernel, outputs, axes=outputs.ndim)
