"""What a network says of many examples, chunk by chunk."""

from __future__ import annotations

from functools import partial

import jax
from jaxtyping import Array, Float

from unlearnkit.base import Model, Variables
from unlearnkit.kernels import map_batches


@partial(jax.jit, static_argnames=("model", "chunk"))
def predict(
    model: Model, variables: Variables, x: Float[Array, "n ..."], *, chunk: int = 1000
) -> Float[Array, "n c"]:
    """Returns the logits of every example, in evaluation mode.

    Args:
      model: the network.
      variables: its weights.
      x: [n, *input_shape] inputs.
      chunk: examples a forward pass; the result does not depend on it beyond rounding.
    """
    return map_batches(model.apply, variables, (x,), chunk)
