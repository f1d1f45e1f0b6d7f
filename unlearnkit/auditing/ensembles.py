"""Ensembles of unlearned and of retrained networks, for audits of a method."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.base import Cost, Dataset, Model, Task, Unlearner, Variables
from unlearnkit.kernels import margins
from unlearnkit.training import Recipe, fit, fit_many, predict, train_like
from unlearnkit.validation import check_choice, check_task

SETS = ("retain", "forget", "validation", "test")
OriginalsName = Literal["one", "many"]


class Ensemble(NamedTuple):
    """Outputs of several networks, in evaluation mode.

    Attributes:
      margins: z_y - logsumexp_{c≠y} z_c by the set's name, [m, n].
      accuracy: by the set's name, [m].
      cost: of making all.
      originals: the trained networks that these were made from by unlearning: `one` or `many`;
        `none` of retrained ones.
    """

    margins: Mapping[str, Float[np.ndarray, "m n"]]
    accuracy: Mapping[str, Float[np.ndarray, " m"]]
    cost: Cost
    originals: Literal["none", "one", "many"] = "none"


def retrained_ensemble(
    key: Key[Array, ""],
    model: Model,
    task: Task,
    recipe: Recipe,
    *,
    count: int,
    start: Variables | None = None,
) -> Ensemble:
    """Returns `count` networks trained together on the retain set alone.

    Args:
      key: decides everything.
      model: the network.
      task: the question; the ensemble answers for all its sets.
      recipe: how to train.
      count: networks, at least 2.
      start: where all begin; None begins each from a fresh initialisation.

    Raises:
      ValueError: a task or weights that do not fit the model, or a count below 2.
      DivergedError: a network diverged.
    """
    _check(task, model, count)
    keys = jax.random.split(key, count)
    variables, info = fit_many(keys, model, task.retain, recipe, variables=start)
    return answer_together(model, variables, task, info.cost)


def unlearned_ensemble(
    key: Key[Array, ""],
    model: Model,
    task: Task,
    recipe: Recipe,
    unlearner: Unlearner,
    *,
    count: int,
    originals: OriginalsName = "many",
) -> Ensemble:
    """Returns `count` networks that were trained on everything and then unlearned.

    From `many` originals, each unlearned network has a training run of its own behind it, as each
    retrained network has: the ensembles then compare what the method makes of any run. From `one`,
    a single original is unlearned with `count` keys, as in the NeurIPS 2023 challenge: the
    ensembles then compare how the outputs vary given that original. They vary less, and
    not at all where the method draws nothing at random; the two give different scores.

    Args:
      key: decides everything.
      model: the network.
      task: the question; the ensemble answers for all its sets.
      recipe: how the originals are trained.
      unlearner: the method under test; without the recipe of the originals' training (see
        `training.train_like`) it is given `recipe`.
      count: networks, at least 2.
      originals: `many`, trained together, or `one`.

    Raises:
      ValueError: a task that does not fit the model, a count below 2, or other `originals`.
      DivergedError: a network diverged.

    Source: many: Rinberg et al. 2025 (KLoM); one: Triantafillou et al. 2024 (the challenge).
    """
    _check(task, model, count)
    check_choice("originals", originals, OriginalsName)
    train_key, unlearn_key = jax.random.split(key)
    if originals == "one":
        trained, info = fit(train_key, model, task.train, recipe)
        starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * count), trained)
    else:
        starts, info = fit_many(jax.random.split(train_key, count), model, task.train, recipe)
    method = train_like(unlearner, recipe)
    variables, spent = unlearn_many(unlearn_key, model, starts, [task] * count, method)
    cost = info.cost.plus(spent)
    return answer_together(model, variables, task, cost)._replace(originals=originals)


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
      tasks: one per network.
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
    """Returns the margins and the accuracy of stacked networks on a dataset.

    Args:
      variables: of m networks, each leaf [m, ...].
      dataset: n examples.
      model: the network.
    """

    def of_one(mine: Variables) -> tuple[Array, Array]:
        logits = predict(model, mine, dataset.x)
        right = jnp.mean(jnp.argmax(logits, -1) == dataset.y)
        return margins(logits, dataset.y), right

    found: tuple[Float[Array, "m n"], Float[Array, " m"]] = jax.lax.map(of_one, variables)
    return found


def answer_together(model: Model, variables: Variables, task: Task, cost: Cost) -> Ensemble:
    """Returns what stacked networks answer on all sets of a task.

    Args:
      model: the network.
      variables: of m networks, each leaf [m, ...].
      task: the question.
      cost: of making them.
    """
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
