"""The two small CNNs of Lu et al. 2022."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import flax.linen as nn
from jaxtyping import Array, Float

from unlearnkit.base import Model
from unlearnkit.models.adapters import from_linen
from unlearnkit.models.dense import ACTIVATIONS
from unlearnkit.models.layers import (
    Conv,
    Images,
    Implementation,
    average_pool,
    check_image_shape,
    check_implementation,
    flatten,
    images,
    max_pool,
)

POOLS: dict[str, Callable[[Images, int], Images]] = {"max": max_pool, "average": average_pool}


class CnnMnist(nn.Module):
    """Two convolutions with pools, one linear layer."""

    n_classes: int
    implementation: Implementation | None
    pool: str = "max"
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
        pool, act = POOLS[self.pool], ACTIVATIONS[self.activation]
        maps = images(x, self.implementation)
        maps = pool(Conv(16, 5, padding=2, name="conv1")(maps), 2).map(act)
        maps = pool(Conv(32, 5, padding=2, name="conv2")(maps), 2).map(act)
        return nn.Dense(self.n_classes, name="classifier")(flatten(maps))


class CnnCifar(nn.Module):
    """Two convolutions with pools, three linear layers."""

    n_classes: int
    implementation: Implementation | None
    pool: str = "max"
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
        pool, act = POOLS[self.pool], ACTIVATIONS[self.activation]
        maps = images(x, self.implementation)
        maps = pool(Conv(6, 5, name="conv1")(maps), 2).map(act)
        maps = pool(Conv(16, 5, name="conv2")(maps), 2).map(act)
        h = flatten(maps)
        h = act(nn.Dense(120, name="fc1")(h))
        h = act(nn.Dense(84, name="fc2")(h))
        return nn.Dense(self.n_classes, name="classifier")(h)


def cnn_mnist(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    implementation: str | None = None,
    pool: str = "max",
    activation: str = "relu",
) -> Model:
    """Returns the MNIST CNN of Lu et al. 2022: conv 16/5x5 - pool - conv 32/5x5 - pool - linear.

    The convolutions keep the image's size; 28,938 parameters on 28x28x1 with ten classes.

    Args:
      input_shape: (height, width, channels), at least 4x4.
      n_classes: the number of logits.
      implementation: of the convolutions, `xla`, `bilinear` or `patches`; None for the backend's
        default.
      pool: `max` as published, or `average`, which with `gelu` makes a network that is smooth in
        its weights and inputs, as metagradients want it.
      activation: `relu`, or another of `mlp`.

    Raises:
      ValueError: the input is no image or too small, or a pool or activation is unknown.

    Source: Lu et al. 2022, §5; widths and kernels from its public code.
    """
    check_image_shape("cnn_mnist", input_shape, smallest=4)
    network = CnnMnist(
        n_classes,
        check_implementation(implementation),
        _known("pool", pool, POOLS),
        _known("activation", activation, ACTIVATIONS),
    )
    return from_linen(network, input_shape=input_shape)


def cnn_cifar(
    *,
    input_shape: tuple[int, ...],
    n_classes: int,
    implementation: str | None = None,
    pool: str = "max",
    activation: str = "relu",
) -> Model:
    """Returns the CIFAR CNN of Lu et al. 2022: conv 6/5x5, pool, conv 16/5x5, pool, 120, 84, c.

    62,006 parameters on 32x32x3 with ten classes.

    Args:
      input_shape: (height, width, channels), at least 16x16.
      n_classes: the number of logits.
      implementation: of the convolutions, `xla`, `bilinear` or `patches`; None for the backend's
        default.
      pool: `max` as published, or `average`, which with `gelu` makes a network that is smooth in
        its weights and inputs, as metagradients want it.
      activation: `relu`, or another of `mlp`.

    Raises:
      ValueError: the input is no image or too small, or a pool or activation is unknown.

    Source: Lu et al. 2022, §5; widths and kernels from its public code.
    """
    check_image_shape("cnn_cifar", input_shape, smallest=16)
    network = CnnCifar(
        n_classes,
        check_implementation(implementation),
        _known("pool", pool, POOLS),
        _known("activation", activation, ACTIVATIONS),
    )
    return from_linen(network, input_shape=input_shape)


def _known(name: str, given: str, alternatives: Mapping[str, object]) -> str:
    if given not in alternatives:
        raise ValueError(f"{name} must be one of {', '.join(alternatives)}, got {given!r}")
    return given
