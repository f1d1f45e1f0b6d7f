"""Batched inference."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Num

from unlearnkit.base import Model, Variables
from unlearnkit.host.arrays import on_host
from unlearnkit.host.reserve import reserve
from unlearnkit.kernels import map_batches


def predict(
    model: Model, variables: Variables, x: Num[Array, "n ..."], *, chunk: int = 1000
) -> Float[Array, "n c"]:
    """Returns the logits of every example, in evaluation mode.

    Datasets of similar size share a compiled program: they are padded to a common size (see
    `host.reserve`), and the padding does not change any row's logits.

    Args:
      model: the network.
      variables: its weights.
      x: [n, *input_shape] inputs.
      chunk: examples per forward pass; the result does not depend on it beyond rounding.
    """
    held = reserve(x)
    logits: Array = _predict(model, variables, held, chunk=chunk)
    if held is not x:
        found = on_host(logits)[: x.shape[0]]
        logits = jax.device_put(found) if isinstance(found, np.ndarray) else found
    return logits


@partial(jax.jit, static_argnames=("model", "chunk"))
def _predict(
    model: Model, variables: Variables, x: Num[Array, "n ..."], *, chunk: int
) -> Float[Array, "n c"]:
    found: Array = map_batches(model.apply, variables, (x,), chunk)
    return found
