"""What a network says of many examples, chunk by chunk."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unlearnkit.base import Model, Variables


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
    n = x.shape[0]
    if n <= chunk:
        return model.apply(variables, x)
    full = n // chunk * chunk
    chunks = x[:full].reshape(n // chunk, chunk, *x.shape[1:])
    logits = jax.lax.map(lambda part: model.apply(variables, part), chunks)
    logits = logits.reshape(full, logits.shape[-1])
    if full == n:
        return logits
    return jnp.concatenate([logits, model.apply(variables, x[full:])])
