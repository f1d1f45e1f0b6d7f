"""Gradient ascent on what is to be forgotten (GA)."""

from __future__ import annotations

import dataclasses

from jaxtyping import Array, Key

from unlearnkit.base import Model, OnEpoch, Task, Unlearned, Variables
from unlearnkit.unlearning._sgd import SgdSettings, descend_on
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True)
class GradientAscent(SgdSettings):
    """Ascends the cross-entropy of the forget set.

    w <- w - η (-∇CE_forget(w) + λ w), BatchNorm in training mode.

    Attributes:
      epochs: passes over the forget set.
      batch_size: examples a step; at most the size of the forget set.

    Source: Graves et al. 2021; defaults of 001, Table 5 (learning rate 1e-3, 5 epochs). 002, A.2.3
    uses learning rates of 5e-6 … 1e-5.
    """

    epochs: int = 5

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
    ) -> Unlearned:
        """Returns the network after the ascent.

        Raises:
          ValueError: a task or variables that do not fit the model, or a batch larger than the
            forget set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        recipe = self.recipe()
        return descend_on(key, model, variables, task.forget, recipe, sign=-1.0, on_epoch=on_epoch)
