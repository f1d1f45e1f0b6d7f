"""Penultimate-layer features, computed in batches."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from unlearnkit.base import Model, Params, Path, Variables

CHUNK = 500
"""Examples per pass."""
PROBES = 8
"""Examples used to find the last layer."""


class LastKernel(NamedTuple):
    """The weights W that turn features into logits; hashable.

    Attributes:
      path: of the subtree of the parameters that holds W.
      leaf: which of the subtree's leaves W is.
      axis: the axis of W that indexes the logits.
    """

    path: Path
    leaf: int
    axis: int


def penultimate(
    model: Model, variables: Variables, x: Num[Array, "n ..."], *, chunk: int = CHUNK
) -> Float[Array, "n d"]:
    """Returns the penultimate-layer features h of every example: the inputs of the last layer.

    h(x) = ∂f_0(x) / ∂W_0, W_0 the weights of the last layer that belong to logit 0: where f_k =
    W_k·h + b_k that is h itself, and where the last layer is a convolution before an average pool,
    it is what the kernel sees, averaged over the positions. Only the model's parameters and outputs
    are needed, so this works for custom networks too. Uses evaluation mode; the features of
    logistic regression are its inputs.

    Args:
      model: the network.
      variables: its weights.
      x: [n, *input_shape] inputs.
      chunk: examples per pass; bounds the memory without changing the features.

    Raises:
      ValueError: the last layer's logits have no weights of their own, or chunk < 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    where = last_kernel(model, variables, x[:PROBES])
    parts = [
        _features(model, where, variables, x[start : start + chunk])
        for start in range(0, x.shape[0], chunk)
    ]
    return jnp.concatenate(parts)


def last_kernel(model: Model, variables: Variables, x: Num[Array, "n ..."]) -> LastKernel:
    """Finds the weights of the last layer by their derivatives.

    The last array with an axis of `n_classes` along which the derivative of logit k is zero
    everywhere but at k, for the first and the last logit.

    Args:
      model: the network.
      variables: its weights.
      x: inputs at which the derivatives are taken.

    Raises:
      ValueError: no such layer.
    """
    candidates = [
        LastKernel(path, leaf, axis)
        for path in reversed([path for layer in model.layers for path in layer])
        for leaf, array in reversed(list(enumerate(jax.tree.leaves(_at(variables.params, path)))))
        for axis in dict.fromkeys((array.ndim - 1, 0))
        if array.ndim >= 2 and array.shape[axis] == model.n_classes
    ]
    for where in candidates:
        if all(_is_own(model, where, variables, x, k) for k in (0, model.n_classes - 1)):
            return where
    raise ValueError(
        "the model's last layer has no weights that belong to one logit each, so its penultimate "
        "features are not defined; give the method a function `features` of your own"
    )


def _is_own(model: Model, where: LastKernel, variables: Variables, x: Array, k: int) -> bool:
    gradient = np.asarray(_kernel_gradients(model, where, k, variables, x))
    others = np.delete(gradient, k, axis=where.axis + 1)
    return bool(np.any(gradient)) and not np.any(others)


@partial(jax.jit, static_argnames=("model", "where"))
def _kernel_gradients(
    model: Model, where: LastKernel, k: Int[Array, ""] | int, variables: Variables, x: Array
) -> Array:
    """Returns ∂f_k / ∂W of every example, [n, *W.shape]."""

    def logit(kernel: Array, example: Array) -> Array:
        params = _replace(variables.params, where, kernel)
        return model.apply(Variables(params, variables.state), example[None])[0, k]

    kernel = jax.tree.leaves(_at(variables.params, where.path))[where.leaf]
    with jax.default_matmul_precision("highest"):
        found: Array = jax.vmap(jax.grad(logit), in_axes=(None, 0))(kernel, x)
        return found


@partial(jax.jit, static_argnames=("model", "where"))
def _features(model: Model, where: LastKernel, variables: Variables, x: Array) -> Array:
    gradients = _kernel_gradients(model, where, 0, variables, x)
    return jnp.take(gradients, 0, axis=where.axis + 1).reshape(x.shape[0], -1)


def _at(params: Params, path: Path) -> Params:
    for name in path:
        params = params[name]
    return params


def _replace(params: Params, where: LastKernel, kernel: Array) -> Params:
    if where.path:
        head, *rest = where.path
        deeper = where._replace(path=tuple(rest))
        return {**params, head: _replace(params[head], deeper, kernel)}
    leaves, structure = jax.tree.flatten(params)
    leaves[where.leaf] = kernel
    return jax.tree.unflatten(structure, leaves)
