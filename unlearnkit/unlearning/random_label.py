"""Training on random labels in the place of what is to be forgotten (RL)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Int, Key

from unlearnkit.base import Dataset, Model, OnEpoch, Task, Unlearned, Variables
from unlearnkit.training import (
    CrossEntropy,
    Objective,
    Recipe,
    TrainState,
    epoch_batches,
    run_epoch,
)
from unlearnkit.training.step import Metrics
from unlearnkit.unlearning._passes import TwoSetSettings, descend_passes, used
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True)
class RandomLabel(TwoSetSettings):
    """Trains on the forget set under random labels, then on the retain set, epoch by epoch.

    In each epoch a pass over {(x, u): x in forget}, u ~ Uniform{0, …, c - 1} drawn anew, and a
    pass over the retain set, by one optimiser; BatchNorm in training mode.

    Attributes:
      epochs: pairs of passes.

    Source: Hayase et al. 2020 (random labels), run as in Fan et al. 2024; defaults of 001,
    Table 5 (learning rate 0.01, 10 epochs) and section 6.1 (momentum 0.9, weight decay 5e-4). The
    reference code uses batches of 256.
    """

    learning_rate: float = 1e-2

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
    ) -> Unlearned:
        """Returns the network after training on random labels.

        Raises:
          ValueError: a task or variables that do not fit the model, or a batch larger than its set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        self.batch_sizes(task)
        objective = CrossEntropy(model, self.recipe())
        return relabel(key, self, model, objective, variables, task, on_epoch=on_epoch)


def relabel(
    key: Key[Array, ""],
    settings: TwoSetSettings,
    model: Model,
    objective: Objective,
    variables: Variables,
    task: Task,
    *,
    context: Any = None,
    on_epoch: OnEpoch | None = None,
) -> Unlearned:
    """Returns the network after descending `objective` on random labels and on the retain set."""
    recipe = settings.recipe()
    batch, forget_batch = settings.batch_sizes(task)
    per_epoch = used(task.retain.size, batch) + used(task.forget.size, forget_batch)
    return descend_passes(
        key,
        _RelabelledEpoch(objective, recipe, forget_batch, model.n_classes),
        recipe,
        variables,
        _Sets(task.retain, task.forget, context),
        example_gradients=float(recipe.epochs * per_epoch),
        on_epoch=on_epoch,
    )


class _Sets(NamedTuple):
    retain: Dataset
    forget: Dataset
    context: Any


@dataclasses.dataclass(frozen=True)
class _RelabelledEpoch:
    """A pass over the forget set under fresh random labels, then one over the retain set."""

    objective: Objective
    recipe: Recipe
    forget_batch: int
    n_classes: int

    def __call__(
        self, state: TrainState, data: _Sets, key: Key[Array, ""], epoch: Int[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        keys = jax.random.split(jax.random.fold_in(key, epoch), 4)
        label_key, forget_key, retain_key, step_key = keys
        retain, forget, context = data
        forget = forget._replace(y=random_labels(label_key, forget.size, self.n_classes))
        passes = (
            (forget, epoch_batches(forget_key, 0, forget.size, self.forget_batch)),
            (retain, epoch_batches(retain_key, 0, retain.size, self.recipe.batch_size)),
        )
        metrics: list[Metrics] = []
        for dataset, batches in passes:
            state, measured = run_epoch(
                self.objective, self.recipe, state, dataset, batches, step_key, context
            )
            metrics.append(measured)
        relabelled, kept = metrics
        return state, {**kept, "random_label_loss": relabelled["loss"]}


def random_labels(key: Key[Array, ""], n: int, n_classes: int) -> Int[Array, " n"]:
    """Returns n labels drawn uniformly from all classes, the true one among them."""
    return jax.random.randint(key, (n,), 0, n_classes)
