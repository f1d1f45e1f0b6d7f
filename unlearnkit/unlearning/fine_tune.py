"""Fine-tuning on the retain set (GD)."""

from __future__ import annotations

import dataclasses

from jaxtyping import Array, Key

from unlearnkit.base import Model, OnEpoch, OnSnapshot, Task, Unlearned, Variables
from unlearnkit.unlearning._sgd import SgdSettings, descend_on
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True)
class FineTune(SgdSettings):
    """Continues training on the retain set, so that the forget set is forgotten.

    w <- w - η (∇CE_retain(w) + λ w), BatchNorm in training mode.

    Attributes:
      epochs: passes over the retain set; see `SgdSettings` for the rest.

    Example:
      unlearn = unlearning.FineTune(epochs=5, batch_size=128, learning_rate=0.05)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `epochs * retain` example-gradients.

    Source: GD of Pawelczyk et al. 2024, A.2.1 (defaults: learning rate 1e-3, momentum 0.9, weight
    decay 5e-4, up to 10 epochs); FT of Di et al. 2024 is the same with learning rate 5e-2 and 30
    epochs.
    """

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
        """Returns the network after fine-tuning.

        Raises:
          ValueError: a task or variables that do not fit the model, or a batch larger than the
            retain set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        return descend_on(
            key, model, variables, task.retain, self, on_epoch=on_epoch, on_snapshot=on_snapshot
        )

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        return self.gradients_on(variables, task.retain)
