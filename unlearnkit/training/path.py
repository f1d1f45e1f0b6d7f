"""A training run as the path of its weights."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Dataset, Model, Params, Variables
from unlearnkit.host.arrays import put
from unlearnkit.host.random import host_key
from unlearnkit.training.fit import fit
from unlearnkit.training.recipe import Recipe


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
      DivergedError: the loss is no longer finite.

    Example:
      path = training.weight_path(key, model, train, training.Recipe(epochs=10))
      plane = auditing.principal_paths({"train": path})
    """
    init_key, _ = host_key(key).split()
    start = jax.jit(model.init)(init_key.typed()) if variables is None else variables
    path: list[Params] = []

    def note(epoch: int, now: Variables) -> None:
        path.append(jax.tree.map(np.array, now.params))

    fit(key, model, dataset, recipe, variables=start, on_snapshot=note)
    found: Params = jax.tree.map(lambda *leaves: put(np.stack(leaves)), start.params, *path)
    return found
