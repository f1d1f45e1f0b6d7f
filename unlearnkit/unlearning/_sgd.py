"""What the unlearners that run stochastic gradient descent share."""

from __future__ import annotations

import dataclasses

from jaxtyping import Array, Key

from unlearnkit.base import Cost, Dataset, Model, OnEpoch, Unlearned, UnlearnInfo, Variables
from unlearnkit.clock import Stopwatch
from unlearnkit.training import CrossEntropy, Recipe, descend


@dataclasses.dataclass(frozen=True)
class SgdSettings:
    """The hyperparameters of stochastic gradient descent.

    Attributes:
      epochs: passes over the data that the method descends on.
      batch_size: examples a step; at most the size of these data.
      learning_rate: constant.
      momentum: heavy-ball momentum.
      weight_decay: λ in (λ/2)‖w‖².
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        self.recipe()

    def recipe(self) -> Recipe:
        """Returns the recipe of these settings."""
        names = (field.name for field in dataclasses.fields(SgdSettings))
        return Recipe(**{name: getattr(self, name) for name in names})


def descend_on(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    dataset: Dataset,
    recipe: Recipe,
    *,
    sign: float = 1.0,
    on_epoch: OnEpoch | None = None,
) -> Unlearned:
    """Returns the network after descending `sign` times the cross-entropy of `dataset`."""
    objective = CrossEntropy(model, recipe, sign)
    trained = descend(key, objective, recipe, dataset, variables, on_epoch=on_epoch)
    return Unlearned(trained.variables, UnlearnInfo(trained.info.history, trained.info.cost))


def with_preparation(unlearned: Unlearned, example_gradients: float, watch: Stopwatch) -> Unlearned:
    """Returns `unlearned` with what went before the descent added to its cost."""
    descent = unlearned.info.cost
    cost = Cost(
        descent.example_gradients + example_gradients,
        descent.seconds + watch.seconds,
        descent.compile_seconds + watch.compile_seconds,
    )
    return unlearned._replace(info=unlearned.info._replace(cost=cost))
