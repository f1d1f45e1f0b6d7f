"""Descent on the images, and on the labels where the domain lets them be free."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from unlearnkit.base import (
    UNIT,
    Cost,
    Dataset,
    Forged,
    Model,
    Normalisation,
    Params,
    SoftDataset,
)
from unlearnkit.costs import Stopwatch
from unlearnkit.forging.descent import adam
from unlearnkit.forging.steps import BatchLoss, Step, check_forgeable, step_error
from unlearnkit.validation import check_at_least, check_choice, check_continuous

Domain: TypeAlias = Literal["free", "range", "grid"]
Start: TypeAlias = Literal["noise", "allowed"]
LEVELS = 255
"""Steps of the pixel grid between black and white."""
GRADIENT_OF_DISTANCE = 2.0
"""Cost of a gradient through a batch's gradient, in example-gradients: that of an HVP."""


class OptimiseInfo(NamedTuple):
    """How an optimisation went.

    Attributes:
      errors: [iterations] η ‖∇L(B_t) - g‖₂ at each point that was looked at.
      cost: what it took.
    """

    errors: Float[Array, " iterations"]
    cost: Cost


class Target(NamedTuple):
    """What a batch is optimised for: arrays alone.

    Attributes:
      params: θ.
      gradient: g.
      learning_rate: η.
      labels: [b] classes; ignored where labels are optimised too.
    """

    params: Params
    gradient: Params
    learning_rate: float
    labels: Array


@dataclasses.dataclass(frozen=True)
class OptimiseForger:
    """Optimises a batch from noise, or from allowed examples, by Adam.

      min_B η ‖∇L(B; θ) - g‖₂

    `free`: images and labels are any real numbers, the paper's relaxation. `range`: pixels stay in
    [0, 1] by projection and labels are classes, drawn at the start. `grid`: pixels are multiples of
    1/255 besides; the gradient is taken on the grid and applied to the point behind it, for steps
    below 1/255 would be rounded away. The best point met is returned.

    Attributes:
      iterations: points that are looked at.
      learning_rate: Adam's, in normalised pixels.
      domain: what a batch may be.
      start: `noise`, uniform pixels and classes; or `allowed`, examples drawn from these.

    Example:
      forge = forging.OptimiseForger(iterations=500)
      batch, error, info = forge(key, model, step, allowed)

    Source: Suliman et al. 2024, eq. (1) and Algorithm 1 with its α = .5; projections: its §4, there
    left open.
    """

    iterations: int = 1000
    learning_rate: float = 0.5
    domain: Domain = "free"
    start: Start = "noise"

    def __post_init__(self) -> None:
        check_at_least(self, 1, "iterations")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        check_choice("domain", self.domain, Domain)
        check_choice("start", self.start, Start)

    def __call__(self, key: Key[Array, ""], model: Model, step: Step, allowed: Dataset) -> Forged:
        """Returns the best batch met; a `SoftDataset` in the domain `free`.

        Args:
          key: draws the start.
          model: the network.
          step: to be taken by another batch.
          allowed: whose shape, normalisation and number of classes the batch takes on.

        Raises:
          ValueError: see `unlearnkit.forging.steps.check_forgeable`.
        """
        normalisation = check_continuous(allowed, method="OptimiseForger")
        check_forgeable(model, step, allowed)
        with Stopwatch() as watch:
            begin = self._begin(key, model, step, allowed)
            free = self.domain == "free"
            labels = jax.nn.one_hot(begin.y, model.n_classes) if free else None
            search = BatchSearch(BatchLoss(model), self.domain, normalisation)
            rate = step.learning_rate
            target = Target(step.variables.params, step.gradient, rate, begin.y)
            with jax.default_matmul_precision("highest"):
                (x, y), errors = adam(
                    search,
                    (begin.x, labels),
                    target,
                    learning_rate=self.learning_rate,
                    iterations=self.iterations,
                )
            batch: Dataset | SoftDataset = begin._replace(x=x)
            if free:
                batch = SoftDataset(x, y, normalisation)
            error = step_error(model, step, batch)
            jax.block_until_ready(error)
        spent = step.batch_size * (1 + GRADIENT_OF_DISTANCE * self.iterations)
        return Forged(
            batch, error, OptimiseInfo(errors, Cost(spent, watch.seconds, watch.compile_seconds))
        )

    def _begin(self, key: Key[Array, ""], model: Model, step: Step, allowed: Dataset) -> Dataset:
        if self.start == "allowed":
            return allowed.take(jax.random.permutation(key, allowed.size)[: step.batch_size])
        pixel_key, label_key = jax.random.split(key)
        pixels = jax.random.uniform(pixel_key, (step.batch_size, *allowed.x.shape[1:]))
        labels = jax.random.randint(label_key, (step.batch_size,), 0, model.n_classes, jnp.int32)
        normalisation = check_continuous(allowed, method="OptimiseForger")
        return Dataset(normalisation.apply(pixels), labels, normalisation)


@dataclasses.dataclass(frozen=True)
class BatchSearch:
    """A `Search` over batches (images, labels or None) of a domain.

    Attributes:
      loss: whose gradient is to be met.
      domain: see `OptimiseForger`.
      normalisation: between pixels and what the network sees.
    """

    loss: BatchLoss
    domain: Domain
    normalisation: Normalisation = UNIT

    def realise(self, point: Any, context: Target) -> Any:
        """Returns the point, its pixels rounded to the grid where the domain is one."""
        x, y = point
        if self.domain != "grid":
            return x, y
        return to_grid(x, self.normalisation), y

    def confine(self, point: Any, context: Target) -> Any:
        """Returns the point with its pixels in range."""
        x, y = point
        if self.domain == "free":
            return x, y
        return self.normalisation.apply(jnp.clip(self.normalisation.invert(x), 0, 1)), y

    def objective(self, realised: Any, context: Target) -> tuple[Array, Array]:
        """Returns the error, twice."""
        x, y = realised
        labels = context.labels if y is None else y
        error = gradient_error(self.loss, context, x, labels)
        return error, error


def to_grid(x: Float[Array, ...], normalisation: Normalisation) -> Float[Array, ...]:
    """Returns images [..., c] with each pixel the nearest multiple of 1/255."""
    return normalisation.apply(jnp.round(normalisation.invert(x) * LEVELS) / LEVELS)


def gradient_error(loss: BatchLoss, target: Target, x: Array, labels: Array) -> Array:
    """Returns η ‖∇L(x, labels) - g‖₂, with gradient 0 where it is 0.

    Args:
      loss: of the network's parameters, a batch and its labels.
      target: g, the weights where it was taken, and the step's learning rate η.
      x: [b, ...] the batch.
      labels: [b] classes, or [b, c] soft labels.
    """
    gradient = jax.grad(loss)(target.params, x, labels)
    difference = ravel_pytree(gradient)[0] - ravel_pytree(target.gradient)[0]
    found: Array = target.learning_rate * optax.safe_norm(difference, 1e-30)
    return found
