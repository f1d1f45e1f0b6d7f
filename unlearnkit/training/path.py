"""A training run as the path of its weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Dataset, Model, Params, Variables
from unlearnkit.host.order import epoch_rows
from unlearnkit.host.random import host_key
from unlearnkit.host.reserve import reserve
from unlearnkit.training.divergence import refuse_infinite_weights
from unlearnkit.training.recipe import Recipe, rate_table, split_recipe
from unlearnkit.training.step import CrossEntropy, start_state
from unlearnkit.training.unit import take_steps
from unlearnkit.validation import check_compatible, check_dataset, check_variables


def weight_path(
    key: Key[Array, ""],
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    *,
    variables: Variables | None = None,
) -> Params:
    """Returns the weights of `fit` with these arguments at its start and after each epoch.

    Like the weights with [1 + epochs] in front; the last ones are those of `fit`, bit for bit.

    Args:
      key: see `fit`.
      model: the network.
      dataset: [n] examples.
      recipe: how to train.
      variables: where to start; None starts from a fresh initialisation.

    Raises:
      ValueError: data or variables that do not fit the model, or a batch larger than the data.
      DivergedError: the weights are no longer finite.

    Example:
      path = training.weight_path(key, model, train, training.Recipe(epochs=10))
      plane = auditing.principal_paths({"train": path})
    """
    check_dataset(dataset)
    check_compatible(dataset, model)
    steps = recipe.steps_per_epoch(dataset.size)
    init_key, run_key = host_key(key).split()
    order_key, step_key = run_key.split()
    start = jax.jit(model.init)(init_key.typed()) if variables is None else variables
    check_variables(start, model)
    form, _ = split_recipe(recipe)
    state, held = start_state(start, recipe=form), reserve(dataset)
    rates = rate_table(recipe, steps, recipe.epochs * steps)
    path = [jax.tree.map(np.array, start.params)]
    for epoch in range(recipe.epochs):
        state, _ = take_steps(
            state,
            held,
            epoch_rows(order_key, epoch, dataset.size, recipe.batch_size),
            rates[epoch * steps : (epoch + 1) * steps],
            step_key.typed(),
            objective=CrossEntropy(model, recipe),
            recipe=recipe,
        )
        path.append(jax.tree.map(np.array, state.variables.params))
    refuse_infinite_weights(state.variables, recipe)
    found: Params = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *path)
    return found
