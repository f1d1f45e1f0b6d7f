"""What the unlearners that run stochastic gradient descent share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
from jaxtyping import Array, Key

from unlearnkit.base import (
    Cost,
    Dataset,
    Model,
    OnEpoch,
    OnSnapshot,
    Task,
    Unlearned,
    UnlearnInfo,
    Variables,
)
from unlearnkit.costs import Stopwatch
from unlearnkit.training import CrossEntropy, Recipe, descend, inherited

S = TypeVar("S", bound="SgdSettings")
DEFAULT_BATCH = 128
"""Examples a step where a method is not told how many, or all of the data where they are fewer."""
LEAST_FOR_STATISTICS = 8
"""Examples of the smallest batch whose own mean and variance BatchNorm may use."""


class Fitted(NamedTuple):
    """A descent as its data allow it.

    Attributes:
      recipe: how it runs.
      adapted: see `UnlearnInfo`.
    """

    recipe: Recipe
    adapted: dict[str, int | str]


@dataclasses.dataclass(frozen=True)
class SgdSettings:
    """The hyperparameters of stochastic gradient descent.

    Attributes:
      epochs: passes over the data that the method descends on.
      batch_size: examples a step; at most the size of these data. None takes 128, or all of the
        data where they are fewer, and `info.adapted` says so. Where a batch holds fewer than 8
        examples and the network has batch statistics, its running statistics are used and kept
        (evaluation mode), and `info.adapted` says so.
      learning_rate: the peak rate; constant, where `train_like` has no schedule.
      momentum: heavy-ball momentum.
      weight_decay: λ in (λ/2)‖w‖².
      train_like: the recipe of the network that is to forget: the descent takes over its
        augmentation, schedule, label smoothing, compute dtype and what else `training.inherited`
        names. None takes over nothing; a study that trains the network itself then tells it.
        `Recipe()` takes over nothing there either.
    """

    epochs: int = 10
    batch_size: int | None = None
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    train_like: Recipe | None = None

    on_forget: ClassVar[bool] = False
    """Whether the method descends on the forget set, and not on the retain set."""

    def __post_init__(self) -> None:
        self.recipe()

    def recipe(self) -> Recipe:
        """Returns the recipe of these settings, before it meets data."""
        return inherited(
            self.train_like,
            epochs=self.epochs,
            batch_size=DEFAULT_BATCH if self.batch_size is None else self.batch_size,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def fitted(self, variables: Variables, dataset: Dataset) -> Fitted:
        """Returns the recipe of a descent on `dataset`.

        Args:
          variables: of the network; a state means that it has batch statistics.
          dataset: what is descended on.

        Raises:
          ValueError: an explicit batch size larger than the data.
        """
        recipe, adapted = self.recipe(), {}
        if self.batch_size is None and dataset.size < recipe.batch_size:
            recipe = dataclasses.replace(recipe, batch_size=dataset.size)
            adapted["batch_size"] = dataset.size
        recipe.steps_per_epoch(dataset.size)
        return Fitted(*with_running_statistics(recipe, variables, adapted, "statistics"))

    def fitting(self: S, task: Task) -> S:
        """Returns the settings with batches no larger than the task's sets.

        For the forget set of a task that is a part of the one that the batches were chosen for.
        """
        return capped(self, batch_size=(task.forget if self.on_forget else task.retain).size)

    @property
    def prefix_stable(self) -> bool:
        """Whether a run of fewer epochs is, bit for bit, the beginning of a longer one.

        It is not where a schedule, a warm-up or milestones of `train_like` shrink with the epochs.
        """
        one, many = (dataclasses.replace(self, epochs=epochs).recipe() for epochs in (1, 1000))
        return many.prefix_stable and one == dataclasses.replace(many, epochs=1)

    def gradients_on(self, variables: Variables, dataset: Dataset) -> float:
        """Returns the example-gradients of a descent on `dataset`; see `fitted`."""
        return self.fitted(variables, dataset).recipe.example_gradients(dataset.size)


def capped(settings: S, **most: int) -> S:
    """Returns settings whose fields are at most these numbers; None stays."""
    for name, size in most.items():
        if (getattr(settings, name) or 0) > size:
            changed: dict[str, Any] = {name: size}
            settings = dataclasses.replace(settings, **changed)
    return settings


def with_running_statistics(
    recipe: Recipe, variables: Variables, adapted: Mapping[str, int | str], name: str
) -> tuple[Recipe, dict[str, int | str]]:
    """Returns the recipe in evaluation mode where its batches are too small for statistics.

    Args:
      recipe: with the batch size that is used.
      variables: of the network; a state means that it has batch statistics.
      adapted: what was adapted before.
      name: what `adapted` calls it.
    """
    small = recipe.batch_size < LEAST_FOR_STATISTICS and not recipe.frozen_state
    if not small or not jax.tree.leaves(variables.state):
        return recipe, dict(adapted)
    return dataclasses.replace(recipe, frozen_state=True), {**adapted, name: "running"}


def descend_on(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    dataset: Dataset,
    settings: SgdSettings,
    *,
    on_epoch: OnEpoch | None = None,
    on_snapshot: OnSnapshot | None = None,
) -> Unlearned:
    """Returns the network after descending the cross-entropy of `dataset`.

    Args:
      key: of the order of the batches and of the steps.
      model: the network.
      variables: where to start.
      dataset: what is descended on.
      settings: how.
      on_epoch: called after each epoch.
      on_snapshot: called with the network after each epoch.

    Raises:
      ValueError: an explicit batch size larger than the data.
      DivergedError: the loss is no longer finite.
    """
    recipe, adapted = settings.fitted(variables, dataset)
    objective = CrossEntropy(model, recipe)
    trained = descend(
        key, objective, recipe, dataset, variables, on_epoch=on_epoch, on_snapshot=on_snapshot
    )
    info = UnlearnInfo(trained.info.history, trained.info.cost, adapted=adapted)
    return Unlearned(trained.variables, info)


def snapshots_of(
    finish: Callable[[Variables], Variables], on_snapshot: OnSnapshot | None
) -> OnSnapshot | None:
    """Returns a listener that is told what `finish` makes of the network after each epoch."""
    if on_snapshot is None:
        return None
    return lambda epoch, variables: on_snapshot(epoch, finish(variables))


def with_preparation(unlearned: Unlearned, example_gradients: float, watch: Stopwatch) -> Unlearned:
    """Returns `unlearned` with what went before the descent added to its cost."""
    own = Cost(example_gradients, watch.seconds, watch.compile_seconds)
    cost = unlearned.info.cost.plus(own)
    return unlearned._replace(info=unlearned.info._replace(cost=cost))
