"""Training on random labels for the forget set (RL)."""

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
from unlearnkit.unlearning._passes import (
    FittedPair,
    TwoSetSettings,
    descend_passes,
    steps_of_whole_pass,
    used,
    whole_batches,
)
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True)
class RandomLabel(TwoSetSettings):
    """Trains on the forget set under random labels, then on the retain set, epoch by epoch.

    In each epoch a pass over {(x, u): x in forget}, u ~ Uniform{0, …, c - 1} drawn anew, and a
    pass over the retain set, by one optimiser; BatchNorm in training mode (forget batches under 8:
    evaluation mode). The pass over the forget set uses every example.

    Attributes:
      epochs: pairs of passes.

    Example:
      unlearn = unlearning.RandomLabel(epochs=5, learning_rate=0.01)
      forgotten, info = unlearn(key, model, variables, task)

    Source: Hayase et al. 2020 (random labels), run as in Fan et al. 2024; defaults of Di et al.
    2024, Table 5 (learning rate 0.01, 10 epochs) and §6.1 (momentum 0.9, weight decay 5e-4). The
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
        fitted = self.fitted_pair(variables, task)
        objectives = CrossEntropy(model, fitted.forget), CrossEntropy(model, fitted.retain)
        return relabel(key, fitted, model, objectives, variables, task, on_epoch=on_epoch)


def relabel(
    key: Key[Array, ""],
    fitted: FittedPair,
    model: Model,
    objectives: tuple[Objective, Objective],
    variables: Variables,
    task: Task,
    *,
    context: Any = None,
    on_epoch: OnEpoch | None = None,
) -> Unlearned:
    """Returns the network after descending on random labels and on the retain set.

    Args:
      key: the run's key.
      fitted: how both passes run.
      model: the network.
      objectives: of the pass over the forget set, and of that over the retain set.
      variables: where to start.
      task: the question.
      context: passed on to the objectives.
      on_epoch: called after each epoch.
    """
    recipe, forget_batch = fitted.retain, fitted.forget.batch_size
    forget_steps = steps_of_whole_pass(task.forget.size, forget_batch)
    per_epoch = used(task.retain.size, recipe.batch_size) + forget_steps * forget_batch
    return descend_passes(
        key,
        _RelabelledEpoch(*objectives, recipe, forget_batch, model.n_classes),
        recipe,
        variables,
        _Sets(task.retain, task.forget, context),
        example_gradients=float(recipe.epochs * per_epoch),
        adapted=fitted.adapted,
        on_epoch=on_epoch,
    )


class _Sets(NamedTuple):
    retain: Dataset
    forget: Dataset
    context: Any


@dataclasses.dataclass(frozen=True)
class _RelabelledEpoch:
    """A pass over the forget set under fresh random labels, then one over the retain set."""

    on_forget: Objective
    on_retain: Objective
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
        away = whole_batches(forget_key, 0, forget.size, self.forget_batch)
        back = epoch_batches(retain_key, 0, retain.size, self.recipe.batch_size)
        steps = away.shape[0] + back.shape[0]
        metrics: list[Metrics] = []
        for objective, dataset, batches in (
            (self.on_forget, forget, away),
            (self.on_retain, retain, back),
        ):
            state, measured = run_epoch(
                objective,
                self.recipe,
                state,
                dataset,
                batches,
                step_key,
                context,
                steps_per_epoch=steps,
            )
            metrics.append(measured)
        relabelled, kept = metrics
        return state, {**kept, "random_label_loss": relabelled["loss"]}


def random_labels(key: Key[Array, ""], n: int, n_classes: int) -> Int[Array, " n"]:
    """Returns n labels drawn uniformly from all classes, the true one among them.

    Args:
      key: draws them.
      n: how many.
      n_classes: drawn from 0 … n_classes - 1.
    """
    return jax.random.randint(key, (n,), 0, n_classes)
