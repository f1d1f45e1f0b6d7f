"""Second-order descent on a batch's images and labels: Gauss-Newton steps in a trust region."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key

from unlearnkit.base import Cost, Dataset, Forged, Model, SoftDataset
from unlearnkit.costs import Stopwatch
from unlearnkit.forging.optimise import GRADIENT_OF_DISTANCE, Target
from unlearnkit.forging.steps import BatchLoss, Step, check_forgeable, step_error
from unlearnkit.trials import Trial
from unlearnkit.validation import check_at_least, check_continuous

Point: TypeAlias = tuple[Array, Array]
"""Images [b, ...] and real labels [b, c]."""
_ACCEPT, _POOR, _GOOD = 1e-4, 0.25, 0.75
"""A step is taken from this share of the predicted fall on; below and above these the radius
shrinks and grows."""
_SMALLEST = 1e-7
"""Of a radius, in units of the start's norm: steps below it are rounding."""


class TrustRegionInfo(NamedTuple):
    """How a search in trust regions went.

    Attributes:
      errors: [restarts, iterations] η ‖∇L(B_t) - g‖₂ at the start of each iteration.
      accepted: [restarts] how many steps were taken; where it is 0 the region shrank to nothing
        around the start, which is then what the restart found.
      products: [restarts] J v and Jᵀ u together.
      stalled: [restarts] whether it ended because the region had shrunk to rounding.
      cost: what it took.
    """

    errors: Float[Array, "restarts iterations"]
    accepted: Int[Array, " restarts"]
    products: Int[Array, " restarts"]
    stalled: Bool[Array, " restarts"]
    cost: Cost


@dataclasses.dataclass(frozen=True)
class LevenbergMarquardtForger:
    """Solves r(B) = ∇L(B; θ) - g = 0 for a batch of real images and labels.

      min_d ‖r + J d‖₂²   s.t.   ‖d‖₂ <= Δ,   J = ∂r / ∂B

    by conjugate gradients on JᵀJ, each step of which takes one J v (forward over reverse mode) and
    one Jᵀ u, stopped where the path leaves the region (Steihaug). A step is taken where the error
    falls; Δ grows and shrinks with how well the linear model told the fall. It begins at allowed
    examples, each restart at others, and returns the best batch of all. An iteration whose step is
    refused costs as much as any other; a region that has shrunk to rounding ends the restart, and
    `info.stalled` and `info.accepted` tell so. So it ends on LeNet after 10 to 20 accepted steps:
    more iterations do not help there, more restarts do. Its ∇L jumps where a ReLU or a max-pool
    switches, which is the likely cause.

    Attributes:
      iterations: steps that are tried, at most.
      products: of conjugate gradients in each, at most.
      restarts: starts.
      radius: the first Δ, as a share of the start's norm.

    Example:
      forge = forging.LevenbergMarquardtForger(iterations=30)
      batch, error, info = forge(key, model, step, allowed)

    Source: eq. (1) of Suliman et al. 2024, in the relaxed domain of its Algorithm 1; Moré 1978 for
    the method, Steihaug 1983 for its inner solve.
    """

    iterations: int = 30
    products: int = 30
    restarts: int = 4
    radius: float = 2.0

    trial: ClassVar[Trial] = Trial(small={"restarts": 2})

    def __post_init__(self) -> None:
        check_at_least(self, 1, "iterations", "products", "restarts")
        if not (self.radius > 0 and math.isfinite(self.radius)):
            raise ValueError(f"radius must be > 0, got {self.radius}")

    def __call__(self, key: Key[Array, ""], model: Model, step: Step, allowed: Dataset) -> Forged:
        """Returns the best batch met, a `SoftDataset`; see `OptimiseForger`.

        Args:
          key: draws the starts.
          model: the network.
          step: to be taken by another batch.
          allowed: examples to start from.

        Raises:
          ValueError: see `unlearnkit.forging.steps.check_forgeable`.
        """
        normalisation = check_continuous(allowed, method="LevenbergMarquardtForger")
        check_forgeable(model, step, allowed)
        search = partial(
            _search, loss=BatchLoss(model), iterations=self.iterations, products=self.products
        )
        target = Target(
            step.variables.params, step.gradient, step.learning_rate, jnp.zeros(0, jnp.int32)
        )
        found = []
        with Stopwatch() as watch, jax.default_matmul_precision("highest"):
            for restart in range(self.restarts):
                own_key = key if restart == 0 else jax.random.fold_in(key, restart)
                rows = jax.random.permutation(own_key, allowed.size)[: step.batch_size]
                begin = allowed.take(rows)
                start = begin.x, jax.nn.one_hot(begin.y, model.n_classes)
                found.append(search(start, target, self.radius))
            best = min(found, key=lambda one: float(one.error))
            x, y = best.point
            batch = SoftDataset(x, y, normalisation)
            error = step_error(model, step, batch)
            jax.block_until_ready(error)
        errors, accepted, products, stalled = (
            jnp.stack([getattr(one, name) for one in found])
            for name in ("errors", "accepted", "products", "stalled")
        )
        gradients = float(jnp.sum(products)) + 2 * self.iterations * self.restarts
        cost = Cost(
            step.batch_size * GRADIENT_OF_DISTANCE * gradients,
            watch.seconds,
            watch.compile_seconds,
        )
        return Forged(batch, error, TrustRegionInfo(errors, accepted, products, stalled, cost))


class _Found(NamedTuple):
    """What one restart found; see `TrustRegionInfo`."""

    point: Point
    error: Array
    errors: Array
    accepted: Array
    products: Array
    stalled: Array


class _State(NamedTuple):
    """Where a restart stands.

    Attributes:
      point: the batch, all in one vector.
      residual: r there, times η.
      radius: Δ.
      tried: iterations.
      accepted: steps taken.
      products: J v and Jᵀ u together.
      errors: [iterations] so far.
    """

    point: Array
    residual: Array
    radius: Array
    tried: Array
    accepted: Array
    products: Array
    errors: Array


@partial(jax.jit, static_argnames=("loss", "iterations", "products"))
def _search(
    start: Point,
    target: Target,
    radius: float | Array,
    *,
    loss: BatchLoss,
    iterations: int,
    products: int,
) -> _Found:
    wanted = ravel_pytree(target.gradient)[0]
    flat, unravel = ravel_pytree(start)
    norm = jnp.linalg.norm(flat)

    def residual(point: Array) -> Array:
        x, y = unravel(point)
        found = ravel_pytree(jax.grad(loss)(target.params, x, y))[0] - wanted
        scaled: Array = target.learning_rate * found
        return scaled

    def goes_on(state: _State) -> Array:
        return jnp.logical_and(state.tried < iterations, state.radius > _SMALLEST * norm)

    def advance(state: _State) -> _State:
        error = jnp.linalg.norm(state.residual)
        value, push = jax.linearize(residual, state.point)
        pull = jax.linear_transpose(push, state.point)
        step, moved, used = _steihaug(push, lambda u: pull(u)[0], value, state.radius, products)
        there = residual(state.point + step)
        fall, predicted = _fall(state.residual, there), _fall(value, value + moved)
        ratio = jnp.where(predicted > 0, fall / jnp.where(predicted > 0, predicted, 1), -1.0)
        takes = (ratio > _ACCEPT) & jnp.all(jnp.isfinite(there))
        length = jnp.linalg.norm(step)
        grown = jnp.where(ratio > _GOOD, jnp.maximum(state.radius, 2.5 * length), state.radius)
        radius = jnp.where(ratio < _POOR, 0.25 * jnp.minimum(length, state.radius), grown)
        return _State(
            jnp.where(takes, state.point + step, state.point),
            jnp.where(takes, there, state.residual),
            radius,
            state.tried + 1,
            state.accepted + takes,
            state.products + used,
            state.errors.at[state.tried].set(error),
        )

    begin = residual(flat)
    none = jnp.zeros((), jnp.int32)
    errors = jnp.full(iterations, jnp.nan)
    state = _State(flat, begin, radius * norm, none, none, none, errors)
    state = jax.lax.while_loop(goes_on, advance, state)
    error = jnp.linalg.norm(state.residual)
    # Iterations that were not needed stand at the last error.
    errors = jnp.where(jnp.arange(iterations) < state.tried, state.errors, error)
    stalled = state.tried < iterations
    point: Point = unravel(state.point)
    return _Found(point, error, errors, state.accepted, state.products, stalled)


def _fall(before: Array, after: Array) -> Array:
    """Returns ‖before‖² - ‖after‖², without the cancellation of the squares' difference."""
    found: Array = jnp.vdot(before - after, before + after)
    return found


class _Path(NamedTuple):
    """Where conjugate gradients stand.

    Attributes:
      at: d.
      moved: J d.
      direction: of the next step.
      size: ‖Jᵀ (r + J d)‖².
      taken: how many steps.
      outside: whether the region's edge was met.
    """

    at: Array
    moved: Array
    direction: Array
    size: Array
    taken: Array
    outside: Array


def _steihaug(
    push: Callable[[Array], Array],
    pull: Callable[[Array], Array],
    residual: Array,
    radius: Array,
    products: int,
) -> tuple[Array, Array, Array]:
    """Returns d of min ‖r + J d‖ within the region, J d, and how many products that took.

    Conjugate gradients for least squares (CGLS): the residual r + J d is carried, so that JᵀJ is
    never squared in the arithmetic. They end at the region's edge, after `products`, or where the
    gradient has fallen by a thousandfold.
    """
    slope = -pull(residual)
    first = jnp.vdot(slope, slope)
    tiny = jnp.finfo(first.dtype).tiny

    def goes_on(carry: _Path) -> Array:
        return (carry.taken < products) & ~carry.outside & (carry.size > 1e-6 * first)

    def advance(carry: _Path) -> _Path:
        at, moved, direction, size, count, _ = carry
        image = push(direction)
        whole = size / jnp.maximum(jnp.vdot(image, image), tiny)
        edge = _to_edge(at, direction, radius)
        outside = whole >= edge
        length = jnp.minimum(whole, edge)
        at, moved = at + length * direction, moved + length * image
        slope = -pull(residual + moved)
        now = jnp.vdot(slope, slope)
        return _Path(at, moved, slope + (now / size) * direction, now, count + 1, outside)

    zeros = jnp.zeros_like(slope), jnp.zeros_like(residual)
    start = _Path(*zeros, slope, first, jnp.zeros((), jnp.int32), jnp.array(False))
    end = jax.lax.while_loop(goes_on, advance, start)
    return end.at, end.moved, 2 * end.taken + 1


def _to_edge(at: Array, direction: Array, radius: Array) -> Array:
    """Returns t >= 0 with ‖at + t direction‖ = radius."""
    a, b = jnp.vdot(direction, direction), jnp.vdot(at, direction)
    c = jnp.maximum(radius**2 - jnp.vdot(at, at), 0)
    tiny = jnp.finfo(a.dtype).tiny
    found: Array = c / jnp.maximum(b + jnp.sqrt(b**2 + a * c), tiny)
    return found
