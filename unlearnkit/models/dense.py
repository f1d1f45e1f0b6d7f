"""Networks of linear layers: logistic regression and multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from unlearnkit.base import Model
from unlearnkit.models.adapters import from_linen

ACTIVATIONS = {
    "relu": nn.relu,
    "leaky_relu": lambda x: nn.leaky_relu(x, 0.2),
    "tanh": jnp.tanh,
    "gelu": nn.gelu,
}


class Mlp(nn.Module):
    """Linear layers with an activation between."""

    n_classes: int
    hidden: tuple[int, ...]
    activation: str

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."]) -> Float[Array, "n c"]:
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden, start=1):
            x = ACTIVATIONS[self.activation](nn.Dense(width, name=f"fc{i}")(x))
        return nn.Dense(self.n_classes, name="classifier")(x)


def logistic(*, input_shape: tuple[int, ...], n_classes: int) -> Model:
    """Returns multinomial logistic regression on the flattened input: logits = W^T x + b.

    Args:
      input_shape: the shape of one example.
      n_classes: the number of logits.

    Source: the LR of Lu et al. 2022, §5.
    """
    return from_linen(Mlp(n_classes, (), "relu"), input_shape=input_shape)


def mlp(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    hidden: Sequence[int] = (128,),
    activation: str = "relu",
) -> Model:
    """Returns a multilayer perceptron on the flattened input.

    Args:
      input_shape: the shape of one example.
      n_classes: the number of logits.
      hidden: widths of the hidden layers, from the input on.
      activation: `relu`, `leaky_relu` (slope .2), `tanh` or `gelu`.

    Raises:
      ValueError: the activation is unknown, or a width is not positive.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if any(width < 1 for width in hidden):
        raise ValueError(f"hidden widths must be >= 1, got {tuple(hidden)}")
    return from_linen(Mlp(n_classes, tuple(hidden), activation), input_shape=input_shape)


def nn_tgda(*, input_shape: tuple[int, ...], n_classes: int) -> Model:
    """Returns the NN of Lu et al. 2022: 784-784-784-10 on MNIST, leaky ReLU of slope .2.

    Args:
      input_shape: the shape of one example.
      n_classes: the number of logits.

    Source: Lu et al. 2022, §5; widths and slope from its public code.
    """
    return mlp(
        input_shape=input_shape, n_classes=n_classes, hidden=(784, 784), activation="leaky_relu"
    )
