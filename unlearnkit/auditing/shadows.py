"""Shadow networks: trained together, each with a random half of the candidates."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from unlearnkit.auditing.ensembles import answers_of_many, unlearn_many
from unlearnkit.auditing.queries import ALONE, Queries
from unlearnkit.base import Cost, Dataset, Model, Task, Unlearner, Variables, concatenate
from unlearnkit.host.random import host_key
from unlearnkit.kernels import margins
from unlearnkit.training import Recipe, fit_many, predict, train_like
from unlearnkit.validation import check_compatible, check_dataset


class Shadows(NamedTuple):
    """Margins of shadow networks on the candidates, for any number of attacks.

    Attributes:
      margins: [s, n] of every candidate under every shadow, in evaluation mode; [s, n, q] of q
        queries of each, see `Queries`.
      is_in: [s, n] whether the candidate was among what the shadow was trained on.
      cost: of training all, and of unlearning.
    """

    margins: Float[np.ndarray, "s n *q"]
    is_in: Bool[np.ndarray, "s n"]
    cost: Cost


class ShadowNetworks(NamedTuple):
    """Trained shadow networks, before any unlearning.

    Attributes:
      variables: of all, each leaf [s, ...].
      chosen: [s, n // 2] the candidates that each was trained on.
      cost: of training them.
    """

    variables: Variables
    chosen: Int[np.ndarray, "s half"]
    cost: Cost


def train_shadows(
    key: Key[Array, ""],
    model: Model,
    task: Task,
    candidates: Dataset,
    recipe: Recipe,
    *,
    count: int = 16,
    unlearner: Unlearner | None = None,
    queries: Queries = ALONE,
) -> Shadows:
    """Returns the margins of shadow networks that are trained as one batched program.

    Shadow i trains on task.retain ∪ task.forget ∪ C_i, where C_i is half of the candidates; every
    two shadows have complementary halves, so that a candidate is in exactly half of all (of an odd
    number of candidates each pair leaves one out). With an unlearner, each shadow then unlearns
    task.forget ∪ C_i by it, and the candidates in C_i are those that were learned and unlearned.

    Args:
      key: decides the halves, the training and the unlearning.
      model: the network.
      task: `retain` is in every shadow and stays, `forget` is in every shadow and goes;
        `validation` is what the unlearner may validate on. `test` is not used.
      candidates: [n] the examples whose membership is asked, none of them in the task's retain or
        forget set.
      recipe: the recipe of the network under attack.
      count: shadows, even and at least 4.
      unlearner: the method under test, or None; without the recipe of the original training
        (see `training.train_like`) it is given `recipe`.
      queries: the views of each candidate that every shadow is asked for.

    Raises:
      ValueError: data that do not fit, too few candidates, or an odd or small count.
      DivergedError: a shadow diverged.

    Source: Carlini et al. 2022 (shadows, each example in half of them); Hayes et al. 2024, U-LiRA
    (shadows unlearn by the method under test).
    """
    networks = train_shadow_networks(key, model, task, candidates, recipe, count=count)
    return ask_shadows(
        key, model, task, candidates, recipe, networks, unlearner=unlearner, queries=queries
    )


def train_shadow_networks(
    key: Key[Array, ""],
    model: Model,
    task: Task,
    candidates: Dataset,
    recipe: Recipe,
    *,
    count: int,
    start: Variables | None = None,
) -> ShadowNetworks:
    """Returns the networks of `train_shadows` before unlearning, which serve several methods.

    Args:
      key: the one of `train_shadows`.
      model: the network.
      task: what every shadow is trained on besides.
      candidates: [n] the examples whose membership is asked.
      recipe: the recipe of the network under attack.
      count: shadows, even and at least 4.
      start: where all begin; None begins each from a fresh initialisation.

    Raises:
      ValueError: data that do not fit, too few candidates, or an odd or small count.
      DivergedError: a shadow diverged.
    """
    if count < 4 or count % 2:
        raise ValueError(f"count must be even and >= 4, got {count}")
    check_dataset(candidates, name="candidates")
    check_compatible(candidates, model, name="candidates")
    if candidates.size < 2:
        raise ValueError(f"at least 2 candidates are needed, got {candidates.size}")
    half_key, train_key, _ = (part.typed() for part in host_key(key).split(3))
    chosen = _halves(half_key, candidates.size, count)
    always = task.retain.size + task.forget.size
    rows = np.concatenate([np.tile(np.arange(always), (count, 1)), always + chosen], axis=1)
    everything = concatenate(task.retain, task.forget, candidates)
    keys = jax.random.split(train_key, count)
    variables, info = fit_many(keys, model, everything, recipe, subsets=rows, variables=start)
    return ShadowNetworks(variables, chosen, info.cost)


def ask_shadows(
    key: Key[Array, ""],
    model: Model,
    task: Task,
    candidates: Dataset,
    recipe: Recipe,
    networks: ShadowNetworks,
    *,
    unlearner: Unlearner | None = None,
    queries: Queries = ALONE,
) -> Shadows:
    """Returns what trained shadows answer, after unlearning where there is a method.

    Args:
      key: the one that the networks were trained with.
      model: the network.
      task: the one that they were trained with.
      candidates: likewise.
      recipe: likewise.
      networks: from `train_shadow_networks`.
      unlearner: see `train_shadows`.
      queries: see `train_shadows`.

    Raises:
      DivergedError: unlearning diverged.
    """
    variables, chosen, cost = networks
    count = len(chosen)
    unlearn_key = host_key(key).split(3)[2].typed()
    if unlearner is not None:
        tasks = [
            task._replace(
                forget=concatenate(task.forget, candidates.take(jnp.asarray(rows))),
                test=task.validation,
            )
            for rows in chosen
        ]
        prepared = train_like(unlearner, recipe)
        variables, spent = unlearn_many(unlearn_key, model, variables, tasks, prepared)
        cost = cost.plus(spent)
    is_in = np.zeros((count, candidates.size), bool)
    np.put_along_axis(is_in, chosen, True, axis=1)
    here = jax.device_get(variables)
    answers = [
        np.asarray(answers_of_many(here, candidates._replace(x=view), model=model)[0], np.float64)
        for view in queries.views(candidates.x)
    ]
    return Shadows(_together(answers), is_in, cost)


def margins_of_queries(
    model: Model, variables: Variables, candidates: Dataset, queries: Queries = ALONE
) -> Float[np.ndarray, " n *q"]:
    """Returns one network's margins on the candidates, as `Shadows.margins` holds each's.

    Args:
      model: the network.
      variables: its weights and state.
      candidates: n examples.
      queries: the q views of each that the network is asked for; by default the example alone.
    """
    return _together(
        [
            np.asarray(margins(predict(model, variables, view), candidates.y), np.float64)
            for view in queries.views(candidates.x)
        ]
    )


def _together(answers: list[np.ndarray]) -> np.ndarray:
    """Returns the answers to several queries along a last axis; those to one as they are."""
    return np.stack(answers, axis=-1) if len(answers) > 1 else answers[0]


def _halves(key: Key[Array, ""], n: int, count: int) -> np.ndarray:
    """Returns the candidates of each shadow, [count, n // 2]."""
    orders = jax.vmap(partial(jax.random.permutation, x=n))(jax.random.split(key, count // 2))
    half = n // 2
    return np.asarray(orders)[:, : 2 * half].reshape(count, half)
