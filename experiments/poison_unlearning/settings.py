"""What is poisoned, trained, unlearned: Pawelczyk et al. 2024, §5.1, A and C, at three scales."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments.claims import read_toml
from experiments.frame import Scale, read_scale
from experiments.poison_unlearning.least_squares import LeastSquares
from unlearnkit import unlearning
from unlearnkit.base import Attack, Unlearner
from unlearnkit.poisoning import (
    Bounds,
    Budget,
    GaussianPoison,
    GradientCanceling,
    GradientMatching,
)
from unlearnkit.studies import BUDGETS
from unlearnkit.studies.reviews import Reviews
from unlearnkit.training import Recipe

METHODS: dict[str, dict[str, Any]] = read_toml(__file__)["methods"]
Poison = Literal["gaussian", "targeted", "indiscriminate"]
POISONS: tuple[Poison, ...] = ("gaussian", "targeted", "indiscriminate")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One scale.

    Attributes:
      dataset: a name that `unlearnkit.data.load` knows.
      model, options: the network's name, and its options.
      recipe: of every training from a fresh initialisation.
      continued: how networks of targeted and indiscriminate poisons are trained, which then begin
        from one that trained on clean examples; None trains fresh ones.
      classes: those of the dataset that are used; all where empty.
      train, test: examples; None for all. A quarter of those of the test set choose learning rates.
      trains: training examples by kind of poisons, in the place of `train`.
      gaussian, targeted, indiscriminate: ε, shares of the training set that are poisoned.
      budgets: shares of unlearning.Retrain's example-gradients.
      identified: shares of the poisons that methods are told of, on `partial_seeds` seeds.
      rate_factor: of the learning rates of the methods. A subset has as many times fewer steps.
      factors: of these rates, of which the best is chosen for each method on `tries` networks of
        each share of poisons, of those that lose at most `tolerance` of retain accuracy on all of
        them and at all budgets, as does the next larger rate; none takes them.
      tuned: by method, what is set otherwise than in Pawelczyk et al. 2024.
      matching: gradient matching; it augments as the recipe does. Its poisons have no box, as Γ of
        A.1.1.
      canceling: gradient canceling, whose pixels have no limit by default, as in A.1.3.
      seeds: repetitions; at least those of `more_seeds`, by kind of poisons.
      noise_std: of Gaussian poisons, in the units of the network.
      features: training examples of the logistic regression of Figure 4; None for all.
      feature_poisons: how many of them are poisoned, or taken away at random.
      least_squares: the synthetic regression of Figure 5.
      reviews: of a dataset of texts, in the place of what is said of images.
    """

    dataset: str
    model: str
    recipe: Recipe
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    continued: Recipe | None = None
    classes: tuple[int, ...] = ()
    train: int | None = None
    trains: dict[str, int] = dataclasses.field(default_factory=dict)
    test: int | None = None
    gaussian: tuple[float, ...] = (0.015, 0.02, 0.025)
    targeted: tuple[float, ...] = (0.015,)
    indiscriminate: tuple[float, ...] = (0.015, 0.02, 0.025)
    budgets: tuple[float, ...] = BUDGETS
    identified: tuple[float, ...] = ()
    partial_seeds: int = 3
    rate_factor: float = 1.0
    factors: tuple[float, ...] = ()
    tries: int = 3
    tolerance: float = 0.03
    tuned: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    matching: GradientMatching = GradientMatching(bounds=Bounds(box=None, radius=16 / 255))  # noqa: RUF009
    canceling: GradientCanceling = GradientCanceling(learning_rate=None)  # noqa: RUF009
    seeds: int = 8
    more_seeds: dict[str, int] = dataclasses.field(default_factory=dict)
    noise_std: float = 0.32**0.5
    features: int | None = None
    feature_poisons: int = 384
    least_squares: LeastSquares = LeastSquares()  # noqa: RUF009 (frozen)
    reviews: Reviews | None = None

    @property
    def kinds(self) -> tuple[Poison, ...]:
        """The kinds of poisons that are tried."""
        known = POISONS if self.reviews is None else POISONS[:2]
        return tuple(kind for kind in known if getattr(self, kind))

    def attacks(self, poison: Poison) -> dict[str, Attack]:
        """Returns the attacks of one kind, named by their share of the training set."""
        recipe = self.recipe_of(poison)
        kinds: dict[Poison, GaussianPoison | GradientMatching | GradientCanceling] = {
            "gaussian": GaussianPoison(noise_std=self.noise_std),
            "targeted": dataclasses.replace(
                self.matching,
                shift=0 if recipe.augmentation == "none" else recipe.shift,
                flip=recipe.augmentation == "shift_flip",
                recipe=self.recipe if self.matching.ensemble > 1 else None,
            ),
            "indiscriminate": self.canceling,
        }
        return {
            f"{100 * e:g} %": dataclasses.replace(kinds[poison], budget=Budget(e))
            for e in getattr(self, poison)
        }

    def seeds_of(self, poison: Poison) -> int:
        """Returns how often one kind of poisons is repeated."""
        return max(self.seeds, self.more_seeds.get(poison, 0))

    def recipe_of(self, poison: Poison) -> Recipe:
        """Returns how the networks of one kind of poisons are trained."""
        return self.recipe if poison == "gaussian" else self.continued or self.recipe

    def methods(self, poison: Poison = "gaussian") -> dict[str, Unlearner]:
        """Returns the methods as set in Pawelczyk et al. 2024, A.2, and training anew for as long.

        Epochs are those that a budget allows. There is one constant rate a method; all else is as
        the network was trained.
        """
        recipe = self.recipe_of(poison)
        like = dataclasses.replace(recipe, schedule="constant")
        methods: dict[str, Unlearner] = {"retrain": unlearning.Retrain(recipe)}
        for name, given in METHODS.items():
            rate = self.rate_factor * given["learning_rate"]
            batch = min(given.get("batch_size", recipe.batch_size), recipe.batch_size)
            own = {**given, "learning_rate": rate, "batch_size": batch, **self.tuned.get(name, {})}
            methods[name] = unlearning.create(name, train_like=like, **own)
        return methods


def choose_settings(scale: Scale) -> dict[str, Setting]:
    """Returns the settings of a scale by dataset; `paper` is that of Pawelczyk et al. 2024."""
    return read_scale(Path(__file__).with_name("settings.toml"), scale, Setting)
