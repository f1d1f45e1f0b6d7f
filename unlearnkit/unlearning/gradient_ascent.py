"""Gradient ascent on the forget set (GA)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxtyping import Array, Key

from unlearnkit.base import Model, OnEpoch, OnSnapshot, Task, Unlearned, Variables
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning._passes import descend_on_forget, gradients_on_forget
from unlearnkit.unlearning._sgd import SgdSettings
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True)
class GradientAscent(SgdSettings):
    """Ascends the cross-entropy of the forget set.

    w <- w - η (-∇CE_forget(w) + λ w), BatchNorm in training mode (batches under 8:
    evaluation mode).

    Attributes:
      epochs: passes over the forget set; each uses every example, see `SgdSettings` for the rest.

    Example:
      unlearn = unlearning.GradientAscent(epochs=3, learning_rate=1e-4)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `epochs * forget` example-gradients.

    Source: Graves et al. 2021; defaults of Di et al. 2024, Table 5 (learning rate 1e-3, 5 epochs).
    Pawelczyk et al. 2024, A.2.3 uses learning rates of 5e-6 … 1e-5.
    """

    epochs: int = 5

    on_forget: ClassVar[bool] = True

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        small={"batch_size": 16},
        effective={"epochs": 5, "batch_size": 10, "learning_rate": 0.01},
    )

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
        on_snapshot: OnSnapshot | None = None,
    ) -> Unlearned:
        """Returns the network after the ascent.

        Raises:
          ValueError: a task or variables that do not fit the model, or a batch larger than the
            forget set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        fitted = self.fitted(variables, task.forget)
        return descend_on_forget(
            key,
            model,
            variables,
            task.forget,
            fitted,
            sign=-1.0,
            on_epoch=on_epoch,
            on_snapshot=on_snapshot,
        )

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        recipe, _ = self.fitted(variables, task.forget)
        return gradients_on_forget(recipe, task.forget.size)
