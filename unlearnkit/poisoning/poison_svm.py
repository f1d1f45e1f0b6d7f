"""Poisons against a support vector machine, one after another (PoisonSVM)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Cost, Model, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.poisoning import _convex
from unlearnkit.poisoning._split import check_share, hold_out
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import check_choice, check_continuous, check_task, check_variables


@dataclasses.dataclass(frozen=True)
class PoisonSvm:
    """Moves label-flipped examples up the validation hinge loss of the SVM trained on them.

    x <- Π(x + step_size g / ‖g‖),   g = (∂w*/∂x)ᵀ ∇_w ℓ(w*)

    with (w*, b*) the soft-margin SVM of clean examples and poisons, ∂w*/∂x from its optimality
    conditions while the examples on the margin stay the same, and ℓ the mean hinge loss of held-out
    clean examples. Each poison is made against all before it, the SVM trained exactly at each move.

    Attributes:
      budget: how many poisons.
      bounds: within which they lie.
      placement: how they enter the training set.
      C: weight of the hinge losses against 1/2 ‖w‖².
      steps: moves of each poison.
      step_size: length of a move, in units of the network (l2).
      held_out: the attacker's share of the clean training set, in (0, 1).

    Example:
      attack = poisoning.PoisonSvm(budget=poisoning.Budget(count=3), C=1.0)
      poisoned = attack(key, model, variables, task)

    Cost: a training of a convex classifier for each step.

    Source: Biggio, Nelson and Laskov 2012, Algorithm 1, with a linear kernel; Lu et al. 2022,
    equations (23) to (25).
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds()  # noqa: RUF009
    placement: Placement = "add"
    C: float = 1.0
    steps: int = 20
    step_size: float = 0.5
    held_out: float = 0.3

    trial: ClassVar[AttackTrial] = AttackTrial(effective={"steps": 5}, two_classes=True)

    def __post_init__(self) -> None:
        check_choice("placement", self.placement, Placement)
        check_share(self.held_out)
        _convex.check_settings(self.C, self.steps, self.step_size)

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the poisoned training set; of `variables` only the shape matters.

        Raises:
          ValueError: a task or variables that do not fit the model, a network that is not linear,
            not two classes, or bounds that exclude a training image.
        """
        check_task(task, model)
        normalisation = check_continuous(task.retain, method="PoisonSvm")
        check_variables(variables, model)
        _convex.check_binary_linear("poison_svm", model)
        clean = task.train
        m = self.budget.of(clean.size)
        ours, theirs = hold_out(key, clean.size, self.held_out)
        base = jnp.asarray(np.sort(np.concatenate([ours, theirs])[:m]), jnp.int32)
        region = self.bounds.region(clean.x[base], normalisation)
        y = 1 - clean.y[base]
        binary = _convex.make_binary(clean.take(ours), clean.take(theirs))
        x, history, diagnostics = region.base, [], []
        with Stopwatch() as watch:
            for row in range(m):
                x, (losses, info) = _convex.move(
                    x,
                    jnp.array([row]),
                    _convex.signs(y),
                    (jnp.arange(m) <= row).astype(x.dtype),
                    region,
                    binary,
                    C=self.C,
                    loss="hinge",
                    steps=self.steps,
                    step_size=self.step_size,
                )
                history.append(losses)
                diagnostics.append(info)
            jax.block_until_ready(x)
        converged, steps = (np.concatenate(parts) for parts in zip(*diagnostics, strict=True))
        _convex.warn_unconverged(converged)
        dataset, is_poison = place(clean, x, y, base, self.placement)
        examples = int(steps.sum()) * (len(ours) + m) + m * self.steps * len(theirs)
        cost = Cost(float(examples), watch.seconds, watch.compile_seconds)
        info = PoisonInfo(base, self.bounds, {"attacker_loss": jnp.concatenate(history)}, cost)
        return Poisoned(dataset, is_poison, info)
