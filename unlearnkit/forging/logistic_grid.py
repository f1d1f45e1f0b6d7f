"""Forgeries of logistic regression that are images and classes."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Cost, Dataset, Forged, Forger, Model
from unlearnkit.costs import Stopwatch
from unlearnkit.forging.descent import adam
from unlearnkit.forging.logistic import read_affine, read_gradient
from unlearnkit.forging.optimise import LEVELS, BatchSearch, Target
from unlearnkit.forging.steps import BatchLoss, Step, check_forgeable, step_error
from unlearnkit.forging.swap import SwapForger
from unlearnkit.validation import check_at_least, check_continuous

RATES = (0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4)
"""Adam's, one after another, in normalised pixels."""


class GridInfo(NamedTuple):
    """How a search over the pixel grid went.

    Attributes:
      started: the error of the batch that it began with.
      descended: the error where the descent ended, in range but off the grid.
      errors: [rounds] of the batch before each round of single changes.
      changed: the share of pixels that differ from the images it began with.
      cost: what it took; an iteration, or a round, counts as an HVP of every example.
    """

    started: Float[Array, ""]
    descended: Float[Array, ""]
    errors: Float[Array, " rounds"]
    changed: Float[Array, ""]
    cost: Cost


@dataclasses.dataclass(frozen=True)
class GridLogisticForger:
    """Changes pixels of allowed images, on the 1/255 grid, until logistic regression takes a step.

      min ‖R‖²,   R = (1/b) Σ_k x_k c_kᵀ - G,   c_k = s(x_k) - y_k,   x_k on the grid, y_k a class

    It begins with another forger's batch of allowed examples and keeps their labels. Adam within
    the range (see `OptimiseForger`), with falling rates, makes nearly all of the way; what rounding
    to the grid then costs is won back by changes of single pixels. To change pixel i of example k
    by δ changes R by δ A to first order, with A = (1/b) (e_i c_kᵀ + x_k u_kiᵀ) and
    u_ki = (diag s_k - s_k s_kᵀ) W_i; the best δ on the grid follows in closed form for all b d
    pixels at once. A round takes the best example for each pixel and makes the best m of these
    changes; m doubles when the error falls, and halves when it does not. Examples that the network
    is sure of, whose c_k is small, give the finest steps.

    Attributes:
      start: whose batch it begins with.
      iterations: of Adam, at each of its `RATES`.
      rounds: of single changes.

    Example:
      forge = forging.GridLogisticForger(iterations=500, rounds=1000)
      batch, error, info = forge(key, model, step, allowed)

    Source: ours; Suliman et al. 2024, §4 leaves it open whether such a batch exists.
    """

    start: Forger = SwapForger()  # noqa: RUF009 (frozen)
    iterations: int = 2000
    rounds: int = 4000

    def __post_init__(self) -> None:
        check_at_least(self, 1, "iterations", "rounds")

    def __call__(self, key: Key[Array, ""], model: Model, step: Step, allowed: Dataset) -> Forged:
        """Returns the batch, images and classes like any other.

        Args:
          key: for the forger that it begins with.
          model: logistic regression on the flattened input.
          step: to be taken.
          allowed: examples.

        Raises:
          ValueError: another network, or see `unlearnkit.forging.steps`.
        """
        normalisation = check_continuous(allowed, method="GridLogisticForger")
        check_forgeable(model, step, allowed)
        with Stopwatch() as watch:
            read_affine(model, step.variables)
            begun = self.start(key, model, step, allowed)
            first = begun.batch
            if not isinstance(first, Dataset):
                raise ValueError("start must be a forger whose labels are classes")
            descended = self._descend(model, step, first)
            reached = step_error(model, step, descended)
            problem, start = make_problem(model, step, first), on_grid(descended)
            with jax.default_matmul_precision("highest"):
                levels, errors = search(problem, start, rounds=self.rounds)
            pixels = (levels / LEVELS).reshape(first.x.shape)
            batch = first._replace(x=normalisation.apply(pixels))
            error = step_error(model, step, batch)
            changed = jnp.mean(levels != on_grid(first))
            jax.block_until_ready((error, changed))
        passes = 1 + 2 * (self.iterations * len(RATES) + self.rounds)
        spent = begun.info.cost.example_gradients + step.batch_size * passes
        cost = Cost(spent, watch.seconds, watch.compile_seconds)
        scaled = step.learning_rate * errors
        return Forged(batch, error, GridInfo(begun.error, reached, scaled, changed, cost))

    def _descend(self, model: Model, step: Step, batch: Dataset) -> Dataset:
        """Returns the batch after Adam in the range of pixels."""
        normalisation = check_continuous(batch, method="GridLogisticForger")
        search = BatchSearch(BatchLoss(model), "range", normalisation)
        target = Target(step.variables.params, step.gradient, step.learning_rate, batch.y)
        point = (batch.x, None)
        with jax.default_matmul_precision("highest"):
            for rate in RATES:
                options = {"learning_rate": rate, "iterations": self.iterations}
                point = adam(search, point, target, **options)[0]
        return batch._replace(x=point[0])


class Problem(NamedTuple):
    """What is searched for: arrays alone, inputs in steps of the grid.

    Attributes:
      kernel: [d + 1, n] W, the intercept last (zeros where there is none).
      gradient: [d + 1, n] G likewise.
      intercept: 1 where the network has one, else 0.
      labels: [b, n] one-hot.
      offset: [d] the network's input of a black pixel.
      scale: [d] what one step of the grid changes it by.
    """

    kernel: Float[Array, "k n"]
    gradient: Float[Array, "k n"]
    intercept: Float[Array, ""]
    labels: Float[Array, "b n"]
    offset: Float[Array, " d"]
    scale: Float[Array, " d"]


def make_problem(model: Model, step: Step, batch: Dataset) -> Problem:
    """Returns the problem of a batch with these labels taking `step`.

    Args:
      model: logistic regression on the flattened input.
      step: to be taken.
      batch: b examples; their labels and the grid of their pixels are read.
    """
    affine, (kernel, intercept) = read_affine(model, step.variables), read_gradient(step)
    shape = batch.x.shape[1:]
    normalisation = check_continuous(batch, method="GridLogisticForger")
    black = jnp.broadcast_to(normalisation.apply(jnp.zeros(shape)), shape).ravel()
    white = jnp.broadcast_to(normalisation.apply(jnp.ones(shape)), shape).ravel()
    zeros = jnp.zeros((1, model.n_classes))

    def stack(rows: Any, last: Any) -> Array:
        bottom = zeros if last is None else jnp.asarray(last, jnp.float32)[None]
        return jnp.concatenate([jnp.asarray(rows, jnp.float32), bottom])

    return Problem(
        stack(affine.kernel, affine.intercept),
        stack(kernel, intercept),
        jnp.asarray(0.0 if intercept is None else 1.0),
        jax.nn.one_hot(batch.y, model.n_classes),
        black,
        (white - black) / LEVELS,
    )


def on_grid(batch: Dataset) -> Float[Array, "b d"]:
    """Returns the nearest grid levels, 0 to 255, of each image's pixels."""
    normalisation = check_continuous(batch, method="GridLogisticForger")
    pixels = normalisation.invert(batch.x).reshape(batch.size, -1)
    return jnp.clip(jnp.round(pixels * LEVELS), 0, LEVELS)


@partial(jax.jit, static_argnames="rounds")
def search(
    problem: Problem, levels: Float[Array, "b d"], *, rounds: int
) -> tuple[Float[Array, "b d"], Float[Array, " rounds"]]:
    """Returns the best levels met, and ‖R‖ before each round.

    Args:
      problem: what is searched for.
      levels: [b, d] pixels to begin with, in steps of the grid, 0 … 255.
      rounds: how many rounds of single changes.
    """
    d = levels.shape[1]

    def advance(carry: tuple[Array, Array, Array], _: None) -> tuple[Any, Array]:
        best, least, most = carry
        examples, changes, gains = best_changes(problem, best)
        ranks = jnp.argsort(jnp.argsort(gains))
        taken = (ranks < most) & (gains < 0)
        tried = best.at[examples, jnp.arange(d)].add(jnp.where(taken, changes, 0))
        error = jnp.linalg.norm(residual(problem, tried)[0])
        better = error < least
        most = jnp.where(better, jnp.minimum(2 * most, d), jnp.maximum(most // 2, 1))
        best = jnp.where(better, tried, best)
        return (best, jnp.minimum(error, least), most), least

    begin = (levels, jnp.linalg.norm(residual(problem, levels)[0]), jnp.array(d))
    (best, _, _), errors = jax.lax.scan(advance, begin, None, length=rounds)
    return best, errors


def residual(
    problem: Problem, levels: Float[Array, "b d"]
) -> tuple[Float[Array, "k n"], Float[Array, "b k"], Float[Array, "b n"]]:
    """Returns R, the inputs with the intercept's 1, and the probabilities s."""
    x = problem.offset + levels * problem.scale
    ones = jnp.broadcast_to(problem.intercept, (x.shape[0], 1))
    inputs = jnp.concatenate([x, ones], axis=1)
    s = jax.nn.softmax(x @ problem.kernel[:-1] + problem.kernel[-1])
    return inputs.T @ (s - problem.labels) / x.shape[0] - problem.gradient, inputs, s


def best_changes(
    problem: Problem, levels: Float[Array, "b d"]
) -> tuple[Int[Array, " d"], Float[Array, " d"], Float[Array, " d"]]:
    """Returns for each pixel the example, the change in levels, and what ‖R‖² changes by."""
    b, d = levels.shape
    error, inputs, s = residual(problem, levels)
    c, kernel = s - problem.labels, problem.kernel[:-1]

    def pulled(v: Array) -> Array:
        """Returns (diag s_k - s_k s_kᵀ) v_k."""
        return s * v - s * jnp.sum(s * v, axis=-1, keepdims=True)

    means = s @ kernel.T
    u = s[:, None] * (kernel[None] - means[:, :, None])
    inner = c @ error[:-1].T + pulled(inputs @ error) @ kernel.T
    squares = jnp.sum(inputs**2, axis=1)[:, None] * jnp.sum(u**2, axis=-1)
    squares += jnp.sum(c**2, axis=1)[:, None] + 2 * inputs[:, :-1] * (pulled(c) @ kernel.T)
    slope, curvature = problem.scale * inner / b, problem.scale**2 * squares / b**2
    ideal = -slope / jnp.maximum(curvature, jnp.finfo(curvature.dtype).tiny)
    changes = jnp.clip(levels + jnp.round(ideal), 0, LEVELS) - levels
    gains = 2 * slope * changes + curvature * changes**2
    examples = jnp.argmin(gains, axis=0)
    pixels = jnp.arange(d)
    return examples, changes[examples, pixels], gains[examples, pixels]
