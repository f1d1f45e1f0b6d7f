"""Layers of convolutional networks, written once for two memory layouts.

A network lifts its input with `images`, and from there every layer takes and returns `Images`: the
array together with the way in which it is laid out and convolved.

- `xla`: [n, h, w, c] and `jax.lax.conv_general_dilated`; what accelerators want.
- `patches`: [c, h, w, n], batch last, and one matrix product over the stacked shifts of the input.
  On a CPU, XLA's convolution gradients are some 30 times slower inside a loop than outside
  (jax-ml/jax#12868), and an epoch is a loop; the batch as the innermost axis keeps every shift,
  pool and activation a run over contiguous memory.

Parameters have the same shapes under both, so that trained weights move between them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeAlias, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Implementation: TypeAlias = Literal["xla", "patches"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Images:
    """A batch of images or feature maps, and how it is laid out.

    Attributes:
      values: [n, h, w, c] for `xla`, [c, h, w, n] for `patches`.
      implementation: how layers convolve it.
    """

    values: Array
    implementation: Implementation = dataclasses.field(metadata={"static": True})

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.values.shape[self.channel_axis]

    @property
    def channel_axis(self) -> int:
        """The axis of `values` that counts channels."""
        return 0 if self.implementation == "patches" else 3

    def map(self, function: Callable[[Array], Array]) -> Images:
        """Returns the images with `function`, which works element by element, applied."""
        return dataclasses.replace(self, values=function(self.values))

    def __add__(self, other: Images) -> Images:
        return dataclasses.replace(self, values=self.values + other.values)


def default_implementation() -> Implementation:
    """Returns `patches` where JAX's default backend is a CPU, otherwise `xla`."""
    return "patches" if jax.default_backend() == "cpu" else "xla"


def check_implementation(implementation: str | None) -> Implementation | None:
    """Returns `implementation`.

    Raises:
      ValueError: it is neither None nor the name of an implementation.
    """
    if implementation is not None and implementation not in get_args(Implementation):
        raise ValueError(
            f"implementation must be one of {', '.join(get_args(Implementation))}, or None for the "
            f"backend's default, got {implementation!r}"
        )
    return cast("Implementation | None", implementation)


def check_image_shape(name: str, input_shape: tuple[int, ...], *, smallest: int) -> None:
    """Returns nothing if the network `name` can take images of this shape.

    Args:
      name: of the network, for the message.
      input_shape: the shape of one example.
      smallest: the least height and width that leave a pixel at the last layer.

    Raises:
      ValueError: the shape is not (height, width, channels), or a side is below `smallest`.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"{name} takes images (height, width, channels), got examples of shape "
            f"{tuple(input_shape)}; reshape them, or use logistic or mlp"
        )
    if min(input_shape[:2]) < smallest:
        raise ValueError(
            f"{name} needs images of at least {smallest}x{smallest} pixels, got "
            f"{input_shape[0]}x{input_shape[1]}; enlarge them, or use cnn_mnist or mlp"
        )


def images(x: Float[Array, "n h w c"], implementation: Implementation | None) -> Images:
    """Returns `x` laid out for `implementation`.

    Args:
      x: [n, h, w, c].
      implementation: `xla`, `patches`, or None for the backend's default.
    """
    chosen = implementation or default_implementation()
    return Images(x.transpose(3, 1, 2, 0) if chosen == "patches" else x, chosen)


def to_nhwc(x: Images) -> Float[Array, "n h w c"]:
    """Returns the images as one array [n, h, w, c]."""
    return x.values.transpose(3, 1, 2, 0) if x.implementation == "patches" else x.values


def flatten(x: Images) -> Float[Array, "n d"]:
    """Returns the images as rows, in the order height, width, channel."""
    values = to_nhwc(x)
    return values.reshape(values.shape[0], -1)


class Conv(nn.Module):
    """Returns the images cross-correlated with a trained kernel, plus a bias.

    y[n, i, j, o] = b[o] + sum over a, b, c of x[n, s i + a - p, s j + b - p, c] k[a, b, c, o]

    Attributes:
      features: channels of the output.
      size: side of the square kernel, in pixels.
      stride: step between outputs, in pixels.
      padding: zeros on each side of the input, in pixels.
      use_bias: whether a bias is added; a norm that follows makes it void.
    """

    features: int
    size: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Images) -> Images:
        shape = (self.size, self.size, x.channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        convolve = _conv_patches if x.implementation == "patches" else _conv_xla
        values = convolve(x.values, kernel, self.stride, self.padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            values += bias[:, None, None, None] if x.implementation == "patches" else bias
        return dataclasses.replace(x, values=values)


def _conv_xla(
    x: Float[Array, "n h w c"], kernel: Float[Array, "a b c o"], stride: int, padding: int
) -> Float[Array, "n i j o"]:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _conv_patches(
    x: Float[Array, "c h w n"], kernel: Float[Array, "a b c o"], stride: int, padding: int
) -> Float[Array, "o i j n"]:
    size, _, channels, features = kernel.shape
    if padding:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = ((side - size) // stride + 1 for side in x.shape[1:3])
    rows, columns = stride * (height - 1) + 1, stride * (width - 1) + 1
    shifts = [
        x[:, a : a + rows : stride, b : b + columns : stride]
        for a in range(size)
        for b in range(size)
    ]
    patches = jnp.stack(shifts).reshape(size * size * channels, -1)
    product = kernel.reshape(-1, features).T @ patches
    return product.reshape(features, height, width, x.shape[3])


def max_pool(x: Images, size: int = 2) -> Images:
    """Returns the largest value of each `size` x `size` block; an incomplete last is dropped."""
    return _pool(x, size, jnp.max)


def average_pool(x: Images, size: int) -> Images:
    """Returns the mean of each `size` x `size` block; an incomplete last is dropped."""
    return _pool(x, size, jnp.mean)


def _pool(x: Images, size: int, reduce: Callable[..., Array]) -> Images:
    before, height, width, after = x.values.shape
    rows, columns = height // size, width // size
    whole = x.values[:, : rows * size, : columns * size]
    blocks = whole.reshape(before, rows, size, columns, size, after)
    return dataclasses.replace(x, values=reduce(blocks, axis=(2, 4)))


def global_average_pool(x: Images) -> Float[Array, "n c"]:
    """Returns the mean of each channel over the image."""
    means = x.values.mean((1, 2))
    return means.T if x.implementation == "patches" else means


def batch_norm(x: Images, train: bool, *, name: str) -> Images:
    """Returns the images normalised channel by channel, then scaled and shifted.

    In training mode by the batch's mean and (biased) variance, which also move the running
    statistics, r <- .9 r + .1 batch; in evaluation mode by the running statistics. To be called in
    the `nn.compact` method of a module, which then holds the parameters.

    Args:
      x: feature maps.
      train: whether the batch's statistics are used.
      name: of the parameters in the calling module.
    """
    norm = nn.BatchNorm(
        use_running_average=not train, axis=x.channel_axis, momentum=0.9, epsilon=1e-5, name=name
    )
    return x.map(norm)
