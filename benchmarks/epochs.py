"""One more epoch of training, as the benchmarks time it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Dataset, Model, Variables
from unlearnkit.host import epoch_rows, host_key, reserve
from unlearnkit.training import (
    CrossEntropy,
    Objective,
    Recipe,
    init_train_state,
    rate_table,
    take_steps,
)

Epoch = Callable[[], dict[str, float]]
"""Trains for one more epoch and returns its mean metrics."""


def one_more_epoch(
    key: Key[Array, ""],
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    variables: Variables | None = None,
    objective: Objective | None = None,
) -> Epoch:
    """Returns a call that trains for one more epoch, at the rates of the recipe's first.

    Args:
      key: draws the batches and drives the steps; also the start where none is given.
      model: the network.
      dataset: the examples.
      recipe: how to train; its number of epochs is not read.
      variables: where to start, left as they are; None takes a fresh initialisation.
      objective: what is descended; None for the cross-entropy of the labels.
    """
    steps = recipe.steps_per_epoch(dataset.size)
    order_key, step_key = host_key(key).split()
    drives, held, rates = step_key.typed(), reserve(dataset), rate_table(recipe, steps, steps)
    start = jax.jit(model.init)(key) if variables is None else jax.tree.map(jnp.array, variables)
    state, done = init_train_state(recipe, steps, start), 0
    descended = CrossEntropy(model, recipe) if objective is None else objective

    def epoch() -> dict[str, float]:
        nonlocal state, done
        rows = epoch_rows(order_key, done, dataset.size, recipe.batch_size)
        state, metrics = take_steps(
            state, held, rows, rates, drives, objective=descended, recipe=recipe
        )
        done += 1
        return {name: float(np.mean(values)) for name, values in metrics.items()}

    return epoch
