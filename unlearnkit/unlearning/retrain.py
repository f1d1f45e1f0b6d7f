"""Retraining from scratch, the gold standard."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxtyping import Array, Key

from unlearnkit.base import Model, OnEpoch, OnSnapshot, Task, Unlearned, UnlearnInfo, Variables
from unlearnkit.training import Recipe, fit
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.validation import check_task


@dataclasses.dataclass(frozen=True)
class Retrain:
    """Trains a fresh network on the retain set alone.

    w* = argmin_w mean_{retain} CE(f(w, x), y), from a new initialisation, or from the weights from
    which the original was fine-tuned.

    Attributes:
      recipe: how to train; give it the recipe of the original network. None takes `Recipe()`, in
        batches of 128 or of the whole retain set where that is smaller (`info.adapted` says so); a
        study that trains the original itself then gives its recipe.

    Example:
      unlearn = unlearning.Retrain(training.Recipe(epochs=30, learning_rate=0.1))
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `recipe.epochs * retain` example-gradients.

    Source: the exact unlearning that Di et al. 2024, Pawelczyk et al. 2024 and Golatkar et al.
    2020b compare every method with.
    """

    recipe: Recipe | None = None

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(from_scratch=True)

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        initial: Variables | None = None,
        on_epoch: OnEpoch | None = None,
        on_snapshot: OnSnapshot | None = None,
    ) -> Unlearned:
        """Returns the retrained network; `variables` are not used.

        Args:
          key: its halves initialise the network and drive the run.
          model: the network.
          variables: the original's.
          task: the question.
          initial: the weights from which the original's training began, and from which this one
            begins too; None starts from a new initialisation. A `Study` with a start passes it.
          on_epoch: called after each epoch.
          on_snapshot: called after `on_epoch`, with the network as it would be returned now.

        Raises:
          ValueError: a task, model or `initial` that does not fit, or a batch larger than the
            retain set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        recipe, adapted = self._fitted(task)
        trained = fit(
            key,
            model,
            task.retain,
            recipe,
            variables=initial,
            on_epoch=on_epoch,
            on_snapshot=on_snapshot,
        )
        info = UnlearnInfo(trained.info.history, trained.info.cost, adapted=adapted)
        return Unlearned(trained.variables, info)

    @property
    def prefix_stable(self) -> bool:
        """Whether a run of fewer epochs is, bit for bit, the beginning of a longer one."""
        return (self.recipe or Recipe()).prefix_stable

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        recipe, _ = self._fitted(task)
        return recipe.example_gradients(task.retain.size)

    def _fitted(self, task: Task) -> tuple[Recipe, dict[str, int | str]]:
        """Returns the recipe as the task allows it, and what was adapted."""
        if self.recipe is not None:
            return self.recipe, {}
        recipe, size = Recipe(), task.retain.size
        if size >= recipe.batch_size:
            return recipe, {}
        return dataclasses.replace(recipe, batch_size=size), {"batch_size": size}
