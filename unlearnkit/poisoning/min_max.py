"""Poisons that the model finds hardest, one after another while it learns (min-max)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import FROM_SCRATCH, Cost, Dataset, Model, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.poisoning._feasible import Ball
from unlearnkit.poisoning._saddle import FeasibleSet, Saddle, play
from unlearnkit.poisoning.bounds import Bounds, check_limits
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import PoisonInfo, place
from unlearnkit.training import DivergedError
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import (
    check_above,
    check_at_least,
    check_continuous,
    check_task,
    check_variables,
)


@dataclasses.dataclass(frozen=True)
class MinMax:
    """Adds the feasible points of the largest hinge loss under a model that trains against them.

    (x_t, y_t) = argmax_{x, y feasible} ℓ(w_t; x, y),   ℓ = max(0, 1 + max_{j≠y} z_j - z_y)
    w_{t+1} = AdaGrad step of mean ℓ(w; clean) + ε ℓ(w; x_t, y_t) + (λ/2)‖w‖²

    Feasible are the points of the box that are no further from the centre of their class than most
    of its examples: what a defender who filters by distance lets through. The points are exact for
    a linear network, and those of `ascent_steps` Frank-Wolfe steps for others. Both loss and sphere
    are in the units of the network. The m points after `burn_in` rounds are the poisons; the
    network learns from `variables` on, its BatchNorm statistics fixed.

    Attributes:
      budget: how many poisons.
      bounds: the box; they are made of no base image, so that a radius means nothing.
      sphere: the quantile of the distances of a class to its centre that is the radius, in (0, 1];
        None for no sphere.
      burn_in: rounds before the first poison.
      ascent_steps: Frank-Wolfe steps of each point; 1 is exact for a linear network.
      learning_rate: of AdaGrad.
      weight_decay: λ.
      batch_size: clean examples of a round, drawn with replacement.

    Example:
      attack = poisoning.MinMax(budget=poisoning.Budget(0.03))
      poisoned = attack(key, model, variables, task)

    Cost: a batch of gradients for each round, and `ascent_steps` for each candidate of a poison.

    Source: Steinhardt, Koh and Liang 2017, Algorithm 1; Lu et al. 2022, equations (26) to (28).
    Their slab, a second filter of two classes, is left out.
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds()  # noqa: RUF009
    sphere: float | None = 0.95
    burn_in: int = 100
    ascent_steps: int = 1
    learning_rate: float = 0.03
    weight_decay: float = 0.0
    batch_size: int = 1000

    trial: ClassVar[AttackTrial] = AttackTrial(small={"burn_in": 2}, effective={"burn_in": 30})

    def __post_init__(self) -> None:
        check_limits(self.bounds, self.sphere, without="the loss has no maximum")
        check_at_least(self, 1, "ascent_steps", "batch_size")
        check_at_least(self, 0, "burn_in", "weight_decay")
        check_above(self, 0, "learning_rate")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with the hardest points added.

        Raises:
          ValueError: a task or variables that do not fit the model, or a box that excludes a
            training image.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_continuous(task.retain, method="MinMax")
        check_variables(variables, model)
        clean = task.train
        self.budget.of(clean.size)
        feasible_set = make_feasible_set(clean, model.n_classes, self.bounds, self.sphere)
        return self._run(key, model, variables, clean, feasible_set)

    def _run(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        clean: Dataset,
        feasible_set: FeasibleSet,
        *,
        tau: float = 0.0,
        spent: Cost | None = None,
    ) -> Poisoned:
        spent = spent or Cost(0.0, 0.0)
        n, m = clean.size, self.budget.of(clean.size)
        rounds = self.burn_in + m
        saddle = Saddle(
            model,
            m / n,
            self.learning_rate,
            self.weight_decay,
            min(self.batch_size, n),
            self.ascent_steps,
            tau,
        )
        with Stopwatch() as watch:
            points, losses = play(variables, clean, feasible_set, key, saddle=saddle, rounds=rounds)
            jax.block_until_ready(losses)
        if not np.all(np.isfinite(losses)):
            raise DivergedError(
                f"the rounds diverged: clean loss {losses}; lower learning_rate="
                f"{self.learning_rate:g}"
            )
        history = {"clean_loss": losses, "poison_loss": points.loss}
        if feasible_set.decoy is not None:
            history["decoy_loss"] = points.decoy_loss
        pairs = model.n_classes**2
        decoys = 2 if feasible_set.decoy is not None else 1
        examples = rounds * (saddle.batch_size + 1 + pairs * (self.ascent_steps * decoys + 1))
        kept = slice(self.burn_in, None)
        base = jnp.full(m, FROM_SCRATCH, jnp.int32)
        dataset, is_poison = place(clean, points.x[kept], points.y[kept], base, "add")
        cost = spent.plus(Cost(examples, watch.seconds, watch.compile_seconds))
        return Poisoned(dataset, is_poison, PoisonInfo(base, self.bounds, history, cost))


def make_feasible_set(
    clean: Dataset, n_classes: int, bounds: Bounds, sphere: float | None
) -> FeasibleSet:
    """Returns where poisons of each class may lie, by the distances of its clean examples.

    Args:
      clean: the clean training set.
      n_classes: c.
      bounds: the box.
      sphere: quantile of the distances that is the radius; None for no sphere.

    Raises:
      ValueError: the box excludes a training image.
    """
    region = bounds.region(clean.x, check_continuous(clean, method="a feasible set"))
    x, y = np.asarray(clean.x), np.asarray(clean.y)
    centres = np.zeros((n_classes, *x.shape[1:]), x.dtype)
    radii = np.full(n_classes, np.inf, x.dtype)
    for label in np.unique(y):
        own = x[y == label]
        centres[label] = own.mean(0)
        if sphere is not None:
            distances = np.linalg.norm((own - centres[label]).reshape(len(own), -1), axis=1)
            radii[label] = np.quantile(distances, sphere)
    present = np.isin(np.arange(n_classes), y)
    # The mean of equal values can round out of the box.
    middle = jnp.where(present.reshape(-1, *(1,) * (x.ndim - 1)), jnp.asarray(centres), clean.x[0])
    middle = jnp.clip(middle, region.low, region.high)
    ball = Ball(region.low, region.high, middle, jnp.asarray(radii))
    return FeasibleSet(ball, jnp.asarray(present), None)
