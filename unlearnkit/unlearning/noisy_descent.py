"""Noisy gradient descent on the retain set (NGD)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from unlearnkit.training import Recipe
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning.fine_tune import FineTune


@dataclasses.dataclass(frozen=True)
class NoisyDescent(FineTune):
    """Fine-tunes on the retain set with Gaussian noise on every gradient.

    w <- w - η (∇CE_retain(w) + λ w + ξ),   ξ ~ N(0, noise_std² I), BatchNorm in training mode.

    Attributes:
      noise_std: standard deviation of ξ, in units of the mean-loss gradient.

    Example:
      unlearn = unlearning.NoisyDescent(epochs=5, noise_std=1e-3)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `epochs * retain` example-gradients.

    Source: Chien et al. 2024, Langevin unlearning; hyperparameters of Pawelczyk et al. 2024, A.2.2
    (σ² = 1e-6).
    """

    noise_std: float = 1e-3

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        small={"noise_std": 0.01}, effective={"noise_std": 0.01}
    )

    def recipe(self) -> Recipe:
        """Returns the recipe of these settings."""
        return dataclasses.replace(super().recipe(), gradient_noise=self.noise_std)
