"""Training on random labels for the forget set (RL)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Model, OnEpoch, OnSnapshot, Task, Unlearned, Variables
from unlearnkit.host.order import epoch_rows, whole_rows
from unlearnkit.host.random import host_key
from unlearnkit.host.reserve import reserve
from unlearnkit.training import CrossEntropy, Objective
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning._passes import (
    FittedPair,
    Pass,
    Plan,
    TwoSetSettings,
    descend_passes,
    gradients_on_forget,
    steps_of_whole_pass,
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

    Cost: `epochs * (retain + forget)` example-gradients.

    Source: Hayase et al. 2020 (random labels), run as in Fan et al. 2024; defaults of Di et al.
    2024, Table 5 (learning rate 0.01, 10 epochs) and §6.1 (momentum 0.9, weight decay 5e-4). The
    reference code uses batches of 256.
    """

    learning_rate: float = 1e-2

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(effective={"learning_rate": 0.05})

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
        """Returns the network after training on random labels.

        Raises:
          ValueError: a task or variables that do not fit the model, or a batch larger than its set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        fitted = self.fitted_pair(variables, task)
        objectives = CrossEntropy(model, fitted.forget), CrossEntropy(model, fitted.retain)
        return relabel(
            key,
            fitted,
            model,
            objectives,
            variables,
            task,
            on_epoch=on_epoch,
            on_snapshot=on_snapshot,
        )

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        return relabelling_gradients(self.fitted_pair(variables, task), task)


def relabelling_gradients(fitted: FittedPair, task: Task) -> float:
    """Returns what `relabel` takes."""
    away = gradients_on_forget(fitted.forget, task.forget.size)
    return fitted.retain.example_gradients(task.retain.size) + away


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
    on_snapshot: OnSnapshot | None = None,
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
      on_snapshot: called with the network after each epoch.
    """
    plan, steps = relabelling_passes(key, fitted, model, objectives, task, context=context)
    return descend_passes(
        plan,
        fitted.retain,
        variables,
        steps_per_epoch=steps,
        example_gradients=relabelling_gradients(fitted, task),
        adapted=fitted.adapted,
        on_epoch=on_epoch,
        on_snapshot=on_snapshot,
    )


def relabelling_passes(
    key: Key[Array, ""],
    fitted: FittedPair,
    model: Model,
    objectives: tuple[Objective, Objective],
    task: Task,
    *,
    context: object = None,
) -> tuple[Plan, int]:
    """Returns the passes of each epoch of `relabel`, and the steps of an epoch.

    Args:
      key: the run's key.
      fitted: how both passes run.
      model: the network.
      objectives: of the pass over the forget set, and of that over the retain set.
      task: the question.
      context: passed on to the objectives.
    """
    recipe, forget_batch = fitted.retain, fitted.forget.batch_size
    on_forget, on_retain = objectives
    retain, forget = reserve(task.retain), reserve(task.forget)
    forget_steps = steps_of_whole_pass(task.forget.size, forget_batch)

    def plan(epoch: int) -> list[Pass]:
        keys = host_key(key).fold_in(epoch).split(4)
        label_key, forget_key, retain_key, step_key = keys
        drawn = label_key.randint(task.forget.size, model.n_classes)
        away = whole_rows(forget_key, 0, task.forget.size, forget_batch)
        back = epoch_rows(retain_key, 0, task.retain.size, recipe.batch_size)
        relabelled = forget._replace(y=jax.device_put(np.resize(drawn, forget.size)))
        typed = step_key.typed()
        return [
            Pass(on_forget, relabelled, away, typed, context, {"loss": "random_label_loss"}),
            Pass(on_retain, retain, back, typed, context),
        ]

    return plan, forget_steps + recipe.steps_per_epoch(task.retain.size)
