"""Adversarial noise on other examples, and logs spoofed with it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from unlearnkit.base import Cost, Dataset, Forged, Forger, Model, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.forging.descent import adam
from unlearnkit.forging.optimise import GRADIENT_OF_DISTANCE, Target, gradient_error
from unlearnkit.forging.steps import BatchLoss, Step, check_forgeable, check_stateless, step_error
from unlearnkit.validation import check_at_least, check_continuous


class NoiseInfo(NamedTuple):
    """How an optimisation of noise went.

    Attributes:
      noise: ‖R‖₂ of the batch's noise, in normalised pixels.
      errors: [iterations] η ‖∇L(B + R_t) - g‖₂.
      cost: what it took.
    """

    noise: Float[Array, ""]
    errors: Float[Array, " iterations"]
    cost: Cost


@dataclasses.dataclass(frozen=True)
class NoiseForger:
    """Adds noise R to a batch of allowed examples, their labels kept.

      min_R η ‖∇L(B + R; θ) - g‖₂ + penalty ‖R‖₂

    The R that is least in this sum is returned.

    Attributes:
      iterations: of Adam.
      learning_rate: Adam's, in normalised pixels.
      penalty: of the noise; the paper writes 1, where η ‖·‖ of a step of 0.01 never outweighs it.

    Example:
      forge = forging.NoiseForger(iterations=500)
      batch, error, info = forge(key, model, step, allowed)

    Source: Zhang et al. 2022, as told in Suliman et al. 2024, §2; Adam in the place of L-BFGS.
    """

    iterations: int = 500
    learning_rate: float = 0.01
    penalty: float = 1e-4

    def __post_init__(self) -> None:
        check_at_least(self, 1, "iterations")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        if not (self.penalty >= 0 and math.isfinite(self.penalty)):
            raise ValueError(f"penalty must be >= 0 and finite, got {self.penalty}")

    def __call__(self, key: Key[Array, ""], model: Model, step: Step, allowed: Dataset) -> Forged:
        """Returns the noisy batch; see `OptimiseForger`."""
        check_continuous(allowed, method="NoiseForger")
        check_forgeable(model, step, allowed)
        with Stopwatch() as watch:
            chosen = jax.random.permutation(key, allowed.size)[: step.batch_size]
            batch = allowed.take(chosen)
            target = Target(step.variables.params, step.gradient, step.learning_rate, batch.y)
            with jax.default_matmul_precision("highest"):
                noise, errors = adam(
                    NoiseSearch(BatchLoss(model)),
                    jnp.zeros_like(batch.x),
                    (target, batch.x, self.penalty),
                    learning_rate=self.learning_rate,
                    iterations=self.iterations,
                )
            noisy = batch._replace(x=batch.x + noise)
            error, size = step_error(model, step, noisy), jnp.linalg.norm(noise.ravel())
            jax.block_until_ready((error, size))
        spent = step.batch_size * (1 + GRADIENT_OF_DISTANCE * self.iterations)
        cost = Cost(spent, watch.seconds, watch.compile_seconds)
        return Forged(noisy, error, NoiseInfo(size, errors, cost))


@dataclasses.dataclass(frozen=True)
class NoiseSearch:
    """A `Search` over noise; the context is (target, images, penalty).

    Attributes:
      loss: whose gradient is to be met.
    """

    loss: BatchLoss

    def realise(self, point: Any, context: Any) -> Any:
        """Returns the point."""
        return point

    def confine(self, point: Any, context: Any) -> Any:
        """Returns the point."""
        return point

    def objective(self, realised: Any, context: Any) -> tuple[Array, Array]:
        """Returns the penalised error, twice."""
        target, x, penalty = context
        error = gradient_error(self.loss, target, x + realised, target.labels)
        penalised = error + penalty * optax.safe_norm(realised.ravel(), 1e-30)
        return penalised, penalised


def spoof_trajectory(
    key: Key[Array, ""],
    model: Model,
    start: Variables,
    end: Variables,
    allowed: Dataset,
    *,
    forger: Forger,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> list[Forged]:
    """Returns one batch per step of a fabricated run from `start` to `end`.

      θ_t = θ_0 + (t / T) (θ_T - θ_0),   g = (θ_t - θ_{t+1}) / η = (θ_0 - θ_T) / (T η)

    Args:
      key: split over the steps.
      model: the network.
      start: θ_0.
      end: θ_T.
      allowed: examples of the owner of the log.
      forger: makes the batch of each step.
      steps: T.
      batch_size: b.
      learning_rate: η.

    Raises:
      ValueError: fewer than one step, or see `unlearnkit.forging.steps.check_forgeable`.

    Source: Zhang et al. 2022, as told in Suliman et al. 2024, §2.
    """
    if steps < 1 or batch_size < 1 or not learning_rate > 0:
        raise ValueError(
            "steps and batch_size must be >= 1 and learning_rate > 0, "
            f"got {steps}, {batch_size} and {learning_rate}"
        )
    check_stateless(start)
    direction = jax.tree.map(jnp.subtract, end.params, start.params)
    gradient = jax.tree.map(lambda d: -d / (steps * learning_rate), direction)
    forged = []
    for t in range(steps):
        params = jax.tree.map(lambda w, d, t=t: w + (t / steps) * d, start.params, direction)
        step = Step(Variables(params), gradient, batch_size, learning_rate)
        forged.append(forger(jax.random.fold_in(key, t), model, step, allowed))
    return forged
