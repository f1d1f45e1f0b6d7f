"""Min-max poisons that a decoy finds easy, so that training on them leads to it (i-min-max)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Model, Poisoned, Task, Variables
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.label_flip import LabelFlip
from unlearnkit.poisoning.min_max import MinMax, make_feasible_set
from unlearnkit.poisoning.placing import warn
from unlearnkit.training import Recipe, fit
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import check_continuous, check_task, check_variables


@dataclasses.dataclass(frozen=True)
class ImprovedMinMax(MinMax):
    """Adds the points of the largest hinge loss among those of a low one under a decoy network.

    (x_t, y_t) = argmax ℓ(w_t; x, y)  over the feasible points with  ℓ(w_decoy; x, y) <= τ

    The decoy is a network of the same kind trained on many flipped labels: bad on clean data, and
    with poisons that fit it, not far from what the defender will end at. For two classes and a
    linear network the points are exact. Otherwise the constraint is linearised at each Frank-Wolfe
    step, and a point above τ is taken only where no class has one below; the history has its loss.

    Attributes:
      tau: τ, in units of the hinge loss.
      decoy: which labels are flipped for the decoy, and how many.
      recipe: how the decoy is trained.

    Example:
      attack = poisoning.ImprovedMinMax(budget=poisoning.Budget(0.03))
      poisoned = attack(key, model, variables, task)

    Cost: one training of the decoy, and what `MinMax` takes.

    Source: Koh, Steinhardt and Liang 2022; Lu et al. 2022, equation (35).
    """

    tau: float = 0.5
    decoy: LabelFlip = LabelFlip(Budget(0.3), "runner_up", "perturb")  # noqa: RUF009
    recipe: Recipe = Recipe(momentum=0.0)  # noqa: RUF009

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"burn_in": 2, "tau": 2.0}, effective={"burn_in": 30, "tau": 2.0}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau < 0:
            raise ValueError(f"tau must be >= 0, got {self.tau}: the hinge loss is never below 0")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with the poisons added.

        Raises:
          ValueError: a task or variables that do not fit the model, a box that excludes a training
            image, or a recipe whose batch is larger than the training set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_continuous(task.retain, method="ImprovedMinMax")
        check_variables(variables, model)
        clean = task.train
        self.budget.of(clean.size)
        feasible_set = make_feasible_set(clean, model.n_classes, self.bounds, self.sphere)
        flip_key, fit_key, play_key = jax.random.split(key, 3)
        flipped = self.decoy(flip_key, model, variables, task)
        trained = fit(fit_key, model, flipped.dataset, self.recipe)
        poisoned = self._run(
            play_key,
            model,
            variables,
            clean,
            feasible_set._replace(decoy=trained.variables),
            tau=self.tau,
            spent=trained.info.cost,
        )
        loss = np.asarray(poisoned.info.history["decoy_loss"])[self.burn_in :]
        above = int((loss > self.tau * (1 + 1e-3) + 1e-3).sum())
        if above:
            warn(
                f"{above} of {len(loss)} poisons have a hinge loss above tau={self.tau:g} under "
                f"the decoy (up to {loss.max():.3g}): no feasible point is below; raise tau, or "
                "widen sphere"
            )
        return poisoned
