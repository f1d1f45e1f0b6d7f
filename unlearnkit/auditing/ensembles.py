"""Ensembles of unlearned and of retrained networks, for audits of a method."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.base import Cost, Dataset, Model, Task, Unlearner, Variables
from unlearnkit.kernels import margins
from unlearnkit.training import Recipe, fit_many, predict, train_like
from unlearnkit.validation import check_task

SETS = ("retain", "forget", "validation", "test")


class Ensemble(NamedTuple):
    """What several networks say, in evaluation mode.

    Attributes:
      margins: z_y - logsumexp_{c≠y} z_c by the set's name, [m, n].
      accuracy: by the set's name, [m].
      cost: of making all.
    """

    margins: Mapping[str, Float[np.ndarray, "m n"]]
    accuracy: Mapping[str, Float[np.ndarray, " m"]]
    cost: Cost


def retrained_ensemble(
    key: Key[Array, ""], model: Model, task: Task, recipe: Recipe, *, count: int
) -> Ensemble:
    """Returns `count` networks trained together on the retain set alone.

    Args:
      key: decides everything.
      model: the network.
      task: the question; the ensemble answers for all its sets.
      recipe: how to train.
      count: networks, at least 2.

    Raises:
      ValueError: a task that does not fit the model, or a count below 2.
      DivergedError: a network diverged.
    """
    _check(task, model, count)
    variables, info = fit_many(jax.random.split(key, count), model, task.retain, recipe)
    return _answers(model, variables, task, info.cost)


def unlearned_ensemble(
    key: Key[Array, ""],
    model: Model,
    task: Task,
    recipe: Recipe,
    unlearner: Unlearner,
    *,
    count: int,
) -> Ensemble:
    """Returns `count` networks trained together on everything, each then unlearned.

    Args:
      key: decides everything.
      model: the network.
      task: the question; the ensemble answers for all its sets.
      recipe: how the originals are trained.
      unlearner: the method under test; where it was not told how the originals were trained (see
        `training.train_like`), it is told `recipe`.
      count: networks, at least 2.

    Raises:
      ValueError: a task that does not fit the model, or a count below 2.
      DivergedError: a network diverged.
    """
    _check(task, model, count)
    train_key, unlearn_key = jax.random.split(key)
    trained = fit_many(jax.random.split(train_key, count), model, task.train, recipe)
    variables, spent = unlearn_many(
        unlearn_key, model, trained.variables, [task] * count, train_like(unlearner, recipe)
    )
    cost = Cost(*(a + b for a, b in zip(trained.info.cost, spent, strict=True)))
    return _answers(model, variables, task, cost)


def unlearn_many(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    tasks: list[Task],
    unlearner: Unlearner,
) -> tuple[Variables, Cost]:
    """Returns networks unlearned one after another, stacked as they came, and the cost of all.

    Args:
      key: decides everything; network i gets `fold_in(key, i)`.
      model: the network.
      variables: with a leading axis of networks.
      tasks: one a network.
      unlearner: the method.
    """
    results, costs = [], []
    # Many devices may hold shares of the networks; unlearning runs on the default one.
    variables = jax.device_get(variables)
    for i, task in enumerate(tasks):
        mine = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), variables)
        unlearned = unlearner(jax.random.fold_in(key, i), model, mine, task)
        results.append(unlearned.variables)
        costs.append(unlearned.info.cost)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
    return stacked, Cost(*np.sum(np.array(costs), axis=0).tolist())


@partial(jax.jit, static_argnames="model")
def answers_of_many(
    variables: Variables, dataset: Dataset, *, model: Model
) -> tuple[Float[Array, "m n"], Float[Array, " m"]]:
    """Returns the margins and the accuracy of stacked networks on a dataset."""

    def of_one(mine: Variables) -> tuple[Array, Array]:
        logits = predict(model, mine, dataset.x)
        right = jnp.mean(jnp.argmax(logits, -1) == dataset.y)
        return margins(logits, dataset.y), right

    return jax.lax.map(of_one, variables)


def _answers(model: Model, variables: Variables, task: Task, cost: Cost) -> Ensemble:
    here = jax.device_get(variables)
    found = {name: answers_of_many(here, getattr(task, name), model=model) for name in SETS}
    return Ensemble(
        {name: np.asarray(values, np.float64) for name, (values, _) in found.items()},
        {name: np.asarray(right, np.float64) for name, (_, right) in found.items()},
        cost,
    )


def _check(task: Task, model: Model, count: int) -> None:
    check_task(task, model)
    if count < 2:
        raise ValueError(f"count must be >= 2, got {count}")
