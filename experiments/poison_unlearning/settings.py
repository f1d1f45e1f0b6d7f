"""What is poisoned, trained, unlearned: Pawelczyk et al. 2024, §5.1, A and C, at three scales."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments.frame import Scale, read_scale
from experiments.poison_unlearning.least_squares import LeastSquares
from unlearnkit import poisoning, unlearning
from unlearnkit.base import Attack, Unlearner
from unlearnkit.studies import BUDGETS
from unlearnkit.training import Recipe

Poison = Literal["gaussian", "targeted", "indiscriminate"]
POISONS: tuple[Poison, ...] = ("gaussian", "targeted", "indiscriminate")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One scale.

    Attributes:
      dataset: a name that `unlearnkit.data.load` knows.
      model: the network's name.
      recipe: of every training.
      train: training examples; None for all.
      gaussian, targeted, indiscriminate: ε, shares of the training set that are poisoned.
      budgets: shares of unlearning.Retrain's example-gradients.
      rate_factor: of the learning rates of the methods. A subset has as many times fewer steps.
      scrub_rate: the learning rate of SCRUB, which Pawelczyk et al. 2024 do not say.
      matching_restarts, matching_steps, matching_radius: of gradient matching; it augments as the
        recipe does.
      canceling_steps, canceling_rate: of gradient canceling.
      canceling_radius: how far its bad weights are from the trained ones.
      canceling_bound: the largest change of a pixel; None as in Pawelczyk et al. 2024, where it
        has no limit.
      canceling_parameters: whose gradient is cancelled; all where empty.
      seeds: repetitions.
      features: training examples of the logistic regression of Figure 4; None for all.
      feature_poisons: how many of them are poisoned, or taken away at random.
      least_squares: the synthetic regression of Figure 5.
    """

    dataset: str
    model: str
    recipe: Recipe
    train: int | None = None
    gaussian: tuple[float, ...] = (0.015, 0.02, 0.025)
    targeted: tuple[float, ...] = (0.015,)
    indiscriminate: tuple[float, ...] = (0.015, 0.02, 0.025)
    budgets: tuple[float, ...] = BUDGETS
    rate_factor: float = 1.0
    scrub_rate: float = 5e-4
    matching_restarts: int = 8
    matching_steps: int = 250
    matching_radius: float = 16 / 255
    canceling_steps: int = 1000
    canceling_rate: float = 0.1
    canceling_radius: float = 1.0
    canceling_bound: float | None = None
    canceling_parameters: tuple[str, ...] = ()
    seeds: int = 8
    features: int | None = None
    feature_poisons: int = 384
    least_squares: LeastSquares = LeastSquares()  # noqa: RUF009 (frozen)

    def attacks(self, poison: Poison) -> dict[str, Attack]:
        """Returns the attacks of one kind, named by their share of the training set."""
        return {
            f"{100 * e:g} %": self._attack(poison, poisoning.Budget(e))
            for e in getattr(self, poison)
        }

    def _attack(self, poison: Poison, budget: poisoning.Budget) -> Attack:
        if poison == "gaussian":
            return poisoning.GaussianPoison(budget=budget)
        if poison == "targeted":
            augmentation = self.recipe.augmentation
            return poisoning.GradientMatching(
                budget=budget,
                bounds=poisoning.Bounds(box=None, radius=self.matching_radius),  # as Γ of A.1.1
                restarts=self.matching_restarts,
                steps=self.matching_steps,
                shift=0 if augmentation == "none" else self.recipe.shift,
                flip=augmentation == "shift_flip",
            )
        return poisoning.GradientCanceling(
            budget=budget, bounds=poisoning.Bounds(box=None, radius=self.canceling_bound),
            corruption=poisoning.GradPC(radius=self.canceling_radius),
            parameters=self.canceling_parameters, steps=self.canceling_steps,
            learning_rate=self.canceling_rate,
        )  # fmt: skip

    def methods(self) -> dict[str, Unlearner]:
        """Returns the methods as set in Pawelczyk et al. 2024, A.2, and training anew for as long.

        Epochs are those that a budget allows. Of the learning rates that Pawelczyk et al. 2024 try
        one is taken.
        """
        batch, factor = self.recipe.batch_size, self.rate_factor
        few = min(batch, 16)
        # Pawelczyk et al. 2024 give one constant rate a method; all else is as the network was
        # trained.
        like = dataclasses.replace(self.recipe, schedule="constant")
        usual: dict[str, Any] = {
            "batch_size": batch, "learning_rate": 1e-3 * factor, "train_like": like
        }  # fmt: skip
        return {
            "retrain": unlearning.Retrain(self.recipe),
            "fine_tune": unlearning.FineTune(**usual),
            "noisy_descent": unlearning.NoisyDescent(**usual, noise_std=1e-3),
            "gradient_ascent": unlearning.GradientAscent(
                batch_size=few, learning_rate=1e-5 * factor, train_like=like
            ),
            "neg_grad_plus": unlearning.NegGradPlus(**usual, beta=0.999),
            "exact_last_layers": unlearning.ExactLastLayers(**usual, k=self.last),
            "catastrophic_last_layers": unlearning.CatastrophicLastLayers(**usual, k=self.last),
            "scrub": unlearning.Scrub(
                batch_size=batch, learning_rate=self.scrub_rate, alpha=0.999, gamma=0.99,
                train_like=like,
            ),
        }  # fmt: skip

    @property
    def last(self) -> int:
        """The layers that EU-k and CF-k train: 3, or all but one of a smaller network."""
        return 1 if self.model == "mlp" else 3


def choose_settings(scale: Scale) -> dict[str, Setting]:
    """Returns the settings of a scale by dataset; `paper` is that of Pawelczyk et al. 2024."""
    return read_scale(Path(__file__).with_name("settings.toml"), scale, Setting)
