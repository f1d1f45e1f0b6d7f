"""Poisons that keep their labels and show natural images of other classes."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from unlearnkit.base import Dataset, Model, Poisoned, Task, Variables
from unlearnkit.host import choose_rows
from unlearnkit.poisoning._shown import show_others
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import Placement
from unlearnkit.training import predict
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import check_at_least, check_continuous, check_task, check_variables


@dataclasses.dataclass(frozen=True)
class Lookalikes:
    """Replaces the images of the poisons by those of other classes that look like their label.

    x_i <- Π(x_k),   k of rank skip · m_j + 1, …, (skip + 1) · m_j by log p_j(x_k) among y_k ≠ j

    for the m_j poisons of label j, with p the class probabilities of the clean network. The nearest
    images are passed over: of them the clean network is in doubt anyway, and few test examples are
    like them. What lies deeper moves the decision surface for all that is nearer too.

    An attack that keeps labels but whose pixels are free may relabel whatever it likes: it shows
    another image under the label. A network that is not linear gives images of its own making (of
    gradients by pixels) a region of their own, and is not harmed; natural images it cannot set
    apart from their true class.

    Attributes:
      budget: how many poisons.
      bounds: within which they lie; a small radius leaves nothing of the other image.
      skip: nearest images that are passed over, in multiples of the poisons of a label; less where
        there are too few.
      placement: `add`, or `perturb` to replace the images in place.

    Example:
      attack = poisoning.Lookalikes(budget=poisoning.Budget(0.03), skip=5.0)
      poisoned = attack(key, model, variables, task)

    Cost: a look at the training set by the clean network.

    Source: ours. Jagielski et al. 2021 flip the labels of whole subpopulations.
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds()  # noqa: RUF009
    skip: float = 5.0
    placement: Placement = "add"

    trial: ClassVar[AttackTrial] = AttackTrial(effective={"placement": "perturb", "skip": 0.5})

    def __post_init__(self) -> None:
        check_at_least(self, 0, "skip")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with the poisons; `variables` are the clean network's.

        Raises:
          ValueError: a task or variables that do not fit the model, bounds that exclude a training
            image, or a label with more poisons than there are examples of other classes.
        """
        check_task(task, model)
        normalisation = check_continuous(task.retain, method="Lookalikes")
        check_variables(variables, model)
        clean = task.train
        base = choose_rows(key, clean.size, self.budget.of(clean.size))

        def choose() -> tuple[Array, Array]:
            return base, self._choose(model, variables, clean, np.asarray(clean.y[base]))

        return show_others(choose, clean, normalisation, self.bounds, self.placement)

    def _choose(
        self, model: Model, variables: Variables, clean: Dataset, labels: Int[np.ndarray, " m"]
    ) -> Int[Array, " m"]:
        """Returns the row of the image that each poison shows."""
        log_p = np.asarray(jax.nn.log_softmax(predict(model, variables, clean.x)))
        classes, shown = np.asarray(clean.y), np.zeros(len(labels), np.int32)
        for label in np.unique(labels):
            mine, others = np.flatnonzero(labels == label), np.flatnonzero(classes != label)
            if len(mine) > len(others):
                raise ValueError(
                    f"label {label} has {len(mine)} poisons, but {len(others)} examples are of "
                    "other classes; lower the budget"
                )
            nearest = others[np.argsort(-log_p[others, label], kind="stable")]
            first = min(round(self.skip * len(mine)), len(others) - len(mine))
            shown[mine] = nearest[first : first + len(mine)]
        return jnp.asarray(shown)
