"""Two poisons, each many times, moved by influence functions (influence attack)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Cost, Model, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.host.random import host_key
from unlearnkit.poisoning import _convex
from unlearnkit.poisoning._split import check_share, hold_out
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import PoisonInfo, place
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import check_choice, check_continuous, check_task, check_variables

SmoothLoss = Literal["logistic", "squared_hinge"]


@dataclasses.dataclass(frozen=True)
class InfluenceAttack:
    """Adds copies of one poison of each class, moved up the validation loss of a linear classifier.

    x <- Π(x + step_size g / ‖g‖),   g = -(∂²L/∂x∂w) H⁻¹ ∇_w ℓ(w*),   w* = argmin_w L(w)

    with L = 1/2 ‖w‖² + C Σ l over clean examples and poisons, H its Hessian, and ℓ the mean loss of
    held-out clean examples. The classifier is trained to its minimum before each move. Each
    poison begins at an example of the other class. For a linear classifier of two classes two
    distinct points do as much as any number.

    Attributes:
      budget: how many poisons; half of them of either class.
      bounds: within which they lie, around the two examples that they begin at.
      loss: of the defender and of the attacker.
      C: weight of the losses against 1/2 ‖w‖².
      steps: moves.
      step_size: length of a move, in units of the network (l2).
      held_out: the attacker's share of the clean training set, in (0, 1).

    Example:
      attack = poisoning.InfluenceAttack(budget=poisoning.Budget(0.03), steps=50)
      poisoned = attack(key, model, variables, task)

    Cost: a training of a convex classifier for each step.

    Source: Koh and Liang 2017; Koh, Steinhardt and Liang 2022, §4; Lu et al. 2022, equations (21)
    and (22). They smooth the hinge; the logistic loss and the squared hinge need no smoothing.
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds()  # noqa: RUF009
    loss: SmoothLoss = "logistic"
    C: float = 1.0
    steps: int = 100
    step_size: float = 0.1
    held_out: float = 0.3

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"steps": 3}, effective={"steps": 30}, two_classes=True
    )

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, SmoothLoss)
        check_share(self.held_out)
        _convex.check_settings(self.C, self.steps, self.step_size)

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with the poisons added; of `variables` only the shape matters.

        Raises:
          ValueError: a task or variables that do not fit the model, a network that is not linear,
            not two classes, a defender's part of one class only, or bounds that exclude a training
            image.
        """
        check_task(task, model)
        normalisation = check_continuous(task.retain, method="InfluenceAttack")
        check_variables(variables, model)
        _convex.check_binary_linear("influence", model)
        clean = task.train
        m = self.budget.of(clean.size)
        split_key, start_key = jax.random.split(key)
        ours, theirs = hold_out(split_key, clean.size, self.held_out)
        rows = _one_of_each(start_key, np.asarray(clean.y), ours)[: min(m, 2)]
        counts = np.array([(m + 1) // 2, m // 2])[: len(rows)]
        region = self.bounds.region(clean.x[rows], normalisation)
        y = 1 - clean.y[rows]
        binary = _convex.make_binary(clean.take(ours), clean.take(theirs))
        with Stopwatch() as watch:
            x, (losses, diagnostics) = _convex.move(
                region.base,
                jnp.arange(len(rows)),
                _convex.signs(y),
                jnp.asarray(counts, region.base.dtype),
                region,
                binary,
                C=self.C,
                loss=self.loss,
                steps=self.steps,
                step_size=self.step_size,
            )
            jax.block_until_ready(x)
        _convex.warn_unconverged(np.asarray(diagnostics.converged))
        copies = np.repeat(np.arange(len(rows)), counts)
        base = jnp.asarray(rows[copies], jnp.int32)
        dataset, is_poison = place(clean, x[copies], y[copies], base, "add")
        examples = int(diagnostics.steps.sum()) * (len(ours) + len(rows)) + self.steps * len(theirs)
        cost = Cost(float(examples), watch.seconds, watch.compile_seconds)
        history = {"attacker_loss": losses}
        return Poisoned(dataset, is_poison, PoisonInfo(base, self.bounds, history, cost))


def _one_of_each(key: Key[Array, ""], y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns one row of class 0 and one of class 1 among `rows`, drawn."""
    drawn = rows[host_key(key).permutation(len(rows))]
    found = [drawn[y[drawn] == label] for label in (0, 1)]
    if not all(len(own) for own in found):
        raise ValueError("the training set must hold examples of both classes, got one class")
    return np.array([own[0] for own in found])
