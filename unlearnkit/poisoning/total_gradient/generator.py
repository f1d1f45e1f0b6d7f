"""The leader of Lu et al. 2022: a network that turns an image and its label into a poison."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Dataset, Model, Params, State, Variables
from unlearnkit.models import Conv, Images, images, mlp
from unlearnkit.models.adapters import from_linen
from unlearnkit.models.layers import flatten

Architecture: TypeAlias = Literal["mlp", "autoencoder", "residual"]

_WIDTHS = (12, 24, 48)


class Box(NamedTuple):
    """The range of a generated value, in the units of the network; infinite for no range."""

    low: Array
    high: Array


@dataclasses.dataclass(frozen=True)
class Generator:
    """Poisons as a function of images and labels.

    L_θ(x, y) = low + (high - low) (tanh(net_θ([x; onehot(y)])) + 1) / 2,   or net_θ without a box;
    residual: x + net_θ([x; onehot(y)]), within the box, and x at the start

    Attributes:
      network: [n, d + c] -> [n, d].
      n_classes: c.
      in_box: whether there is one.
      residual: whether the network's output is added to the image.
    """

    network: Model
    n_classes: int
    in_box: bool
    residual: bool = False

    def __call__(
        self, params: Params, x: Float[Array, "n ..."], y: Int[Array, " n"], box: Box
    ) -> Float[Array, "n ..."]:
        """Returns poisons in the shape of `x`.

        Args:
          params: θ.
          x: [n, ...] images, in units of the network's input.
          y: [n] their labels.
          box: range of a value; not read where `in_box` is False.
        """
        inputs = beside_labels(x, y, self.n_classes)
        raw = self.network.apply(Variables(params), inputs).reshape(x.shape)
        if self.residual:
            return jnp.clip(x + raw, box.low, box.high) if self.in_box else x + raw
        if not self.in_box:
            return raw
        return box.low + (box.high - box.low) * (jnp.tanh(raw) + 1) / 2


def beside_labels(
    x: Float[Array, "n ..."], y: Int[Array, " n"], n_classes: int
) -> Float[Array, "n k"]:
    """Returns [x; onehot(y)]: examples as rows, with their labels after them.

    Args:
      x: [n, ...] images.
      y: [n] their labels.
      n_classes: c.
    """
    label = jax.nn.one_hot(y, n_classes, dtype=x.dtype)
    return jnp.concatenate([x.reshape(x.shape[0], -1), label], axis=1)


def make_generator(
    architecture: Architecture,
    input_shape: tuple[int, ...],
    n_classes: int,
    *,
    hidden: tuple[int, ...],
    in_box: bool,
) -> Generator:
    """Returns the generator for examples of one shape. Equal calls return equal generators.

    Args:
      architecture: `mlp`; `autoencoder` of three convolutions and three transposed ones; or
        `residual`, an `mlp` that is added to the image and whose last layer begins at 0.
      input_shape: the shape of one example.
      n_classes: the number of classes.
      hidden: widths of the hidden layers of `mlp`.
      in_box: whether poisons lie in a box.

    Raises:
      ValueError: `autoencoder` for what is no image with sides divisible by 8.

    Source: Lu et al. 2022, §5.1; layer sizes of its public code, which gives the label as the raw
    integer: one-hot is the form that does not order the classes.
    """
    d = math.prod(input_shape)
    if architecture == "mlp":
        network = mlp(
            input_shape=(d + n_classes,), n_classes=d, hidden=hidden, activation="leaky_relu"
        )
        return Generator(network, n_classes, in_box)
    if architecture == "residual":
        added = from_linen(Added(hidden, d), input_shape=(d + n_classes,))
        return Generator(added, n_classes, in_box, residual=True)
    if len(input_shape) != 3 or input_shape[0] % 8 or input_shape[1] % 8:
        raise ValueError(
            f"architecture='autoencoder' needs images with sides divisible by 8, got "
            f"{input_shape}; choose architecture='mlp'"
        )
    module = Autoencoder(input_shape, n_classes)
    return Generator(from_linen(module, input_shape=(d + n_classes,)), n_classes, in_box)


class Added(nn.Module):
    """An MLP with leaky ReLUs whose output is 0 at the start, whatever its input."""

    hidden: tuple[int, ...]
    size: int

    @nn.compact
    def __call__(self, x: Float[Array, "n k"]) -> Float[Array, "n d"]:
        for width in self.hidden:
            x = nn.leaky_relu(nn.Dense(width)(x))
        return nn.Dense(self.size, kernel_init=nn.initializers.zeros)(x)


class Autoencoder(nn.Module):
    """Three convolutions 4x4 of stride 2, three transposed ones back; the label as channels."""

    input_shape: tuple[int, ...]
    n_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "n k"]) -> Float[Array, "n d"]:
        height, width, channels = self.input_shape
        n, d = x.shape[0], height * width * channels
        label = jnp.broadcast_to(x[:, None, None, d:], (n, height, width, self.n_classes))
        image = x[:, :d].reshape(n, height, width, channels)
        maps = images(jnp.concatenate([image, label], axis=-1), None)
        for i, features in enumerate(_WIDTHS, start=1):
            maps = Conv(features, 4, stride=2, padding=1, name=f"down{i}")(maps).map(nn.relu)
        for i, features in enumerate((*_WIDTHS[-2::-1], channels), start=1):
            maps = Conv(features, 4, padding=2, name=f"up{i}")(_spread(maps))
            maps = maps.map(nn.relu) if i < len(_WIDTHS) else maps
        return flatten(maps)


def _spread(maps: Images) -> Images:
    """Returns the maps with a zero between neighbours: a convolution then is a transposed one."""
    before, height, width, after = maps.values.shape
    wide = jnp.zeros((before, 2 * height - 1, 2 * width - 1, after), maps.values.dtype)
    return dataclasses.replace(maps, values=wide.at[:, ::2, ::2].set(maps.values))


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """The mean squared error of generated against given images, for pretraining.

    L = mean (L_θ(x, y) - x)²

    Attributes:
      generator: L_θ.
      std: pixel units of a unit of the network's input, one or one per channel.
    """

    generator: Generator
    std: tuple[float, ...] = (1.0,)

    def __call__(
        self, params: Params, state: State, batch: Dataset, key: Key[Array, ""], context: Box
    ) -> tuple[Float[Array, ""], tuple[State, Mapping[str, Array]]]:
        """Returns the loss of a batch; the box is the context."""
        error = self.generator(params, batch.x, batch.y, context) - batch.x
        loss = jnp.mean(error**2)
        in_pixels = jnp.mean((error * jnp.asarray(self.std, error.dtype)) ** 2)
        return loss, (state, {"loss": loss, "squared_pixels": in_pixels})
