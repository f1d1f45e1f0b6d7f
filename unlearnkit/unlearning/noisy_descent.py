"""Noisy gradient descent on what stays (NGD)."""

from __future__ import annotations

import dataclasses

from jaxtyping import Array, Key

from unlearnkit.base import Model, OnEpoch, Task, Unlearned, Variables
from unlearnkit.training import Recipe
from unlearnkit.unlearning._sgd import SgdSettings, descend_on
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True)
class NoisyDescent(SgdSettings):
    """Fine-tunes on the retain set with Gaussian noise on every gradient.

    w <- w - η (∇CE_retain(w) + λ w + ξ),   ξ ~ N(0, noise_std² I), BatchNorm in training mode.

    Attributes:
      noise_std: standard deviation of ξ, in units of the mean-loss gradient.

    Source: Chien et al. 2024, Langevin unlearning; hyperparameters of 002, A.2.2 (σ² = 1e-6).
    """

    noise_std: float = 1e-3

    def recipe(self) -> Recipe:
        """Returns the recipe of these settings."""
        return dataclasses.replace(super().recipe(), gradient_noise=self.noise_std)

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
    ) -> Unlearned:
        """Returns the network after noisy fine-tuning.

        Raises:
          ValueError: a task or variables that do not fit the model, or a batch larger than the
            retain set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        return descend_on(key, model, variables, task.retain, self.recipe(), on_epoch=on_epoch)
