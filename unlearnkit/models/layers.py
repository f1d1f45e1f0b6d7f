"""Layers of convolutional networks, written once for two memory layouts.

A network lifts its input with `images`, and from there every layer takes and returns `Images`: the
array together with the way in which it is laid out and convolved.

- `xla`: [n, h, w, c] and `jax.lax.conv_general_dilated`; what accelerators want.
- `bilinear`: [n, h, w, c] and the convolution of `unlearnkit.models.convolution`, whose derivatives
  stay fast inside a loop on a CPU; what a CPU wants where layers have more than some 16 features.
- `patches`: [c, h, w, n], batch last, and one matrix product over the stacked shifts of the input.
  On a CPU, XLA's convolution gradients are some 30 times slower inside a loop than outside
  (jax-ml/jax#12868), and an epoch is a loop; the batch as the innermost axis keeps every shift,
  pool and activation a run over contiguous memory. What a CPU wants where layers are thin.

Parameters have the same shapes under both, so that trained weights move between them.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unlearnkit.models import convolution, patches

Implementation: TypeAlias = Literal["xla", "patches", "bilinear"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Images:
    """A batch of images or feature maps, and how it is laid out.

    Attributes:
      values: [n, h, w, c]; for `patches` [c, h, w, n].
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


_WANTED: contextvars.ContextVar[Implementation | None] = contextvars.ContextVar(
    "_WANTED", default=None
)


@contextlib.contextmanager
def convolved_as(implementation: Implementation) -> Iterator[None]:
    """Has networks that leave the choice convolve by `implementation` while they are traced here.

    For what reads layers out of a network's program, as K-FAC, and knows not all of them.

    Args:
      implementation: of networks that were made without one.
    """
    token = _WANTED.set(implementation)
    try:
        yield
    finally:
        _WANTED.reset(token)


def wanted_implementation() -> Implementation | None:
    """Returns what `convolved_as` asks for here, if it does."""
    return _WANTED.get()


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
    """Raises ValueError if the network `name` cannot take images of this shape.

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
    chosen = implementation or _WANTED.get() or default_implementation()
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
        bias = (
            self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        )
        return convolve(x, kernel, bias, stride=self.stride, padding=self.padding)


def convolve(
    x: Images,
    kernel: Float[Array, "s s c o"],
    bias: Float[Array, " o"] | None,
    *,
    stride: int,
    padding: int,
) -> Images:
    """Returns the images cross-correlated with `kernel`, plus a bias; see `Conv`.

    Args:
      x: [n, h, w, c] images, with the implementation of their convolutions.
      kernel: [s, s, c, o].
      bias: [o], or None for none.
      stride: between two outputs, in pixels.
      padding: rows and columns of zeros on each side.
    """
    function = _CONVOLUTIONS[x.implementation]
    return dataclasses.replace(
        x, values=function(x.values, kernel, bias, stride=stride, padding=padding)
    )


def _convolve_xla(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "s s c o"],
    bias: Float[Array, " o"] | None,
    *,
    stride: int,
    padding: int,
) -> Float[Array, "n i j o"]:
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y if bias is None else y + bias


def _convolve_bilinear(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "s s c o"],
    bias: Float[Array, " o"] | None,
    *,
    stride: int,
    padding: int,
) -> Float[Array, "n i j o"]:
    y = convolution.convolve(x, kernel, stride=stride, padding=padding)
    return y if bias is None else y + bias


_CONVOLUTIONS: dict[Implementation, Callable[..., Array]] = {
    "xla": _convolve_xla,
    "patches": patches.convolve,
    "bilinear": _convolve_bilinear,
}


def max_pool(x: Images, size: int = 2) -> Images:
    """Returns the largest value of each `size` x `size` block; an incomplete last is dropped.

    Tied maxima share the gradient equally, as they do in `jnp.max`.
    """
    return dataclasses.replace(x, values=_block_max(_blocks(x.values, size)))


def average_pool(x: Images, size: int) -> Images:
    """Returns the mean of each `size` x `size` block; an incomplete last is dropped."""
    return dataclasses.replace(x, values=_blocks(x.values, size).mean((2, 4)))


def overlapping_max_pool(x: Images, size: int, *, stride: int, padding: int) -> Images:
    """Returns the largest value of each window; what lies beyond the border is never the largest.

    Args:
      x: feature maps.
      size: side of a window, in pixels.
      stride: step between windows, in pixels.
      padding: how far windows reach beyond the border, in pixels.
    """
    margin = (padding, padding)
    values = jnp.pad(x.values, ((0, 0), margin, margin, (0, 0)), constant_values=-jnp.inf)
    largest = values
    for axis in (1, 2):
        last = largest.shape[axis] - size + 1
        shifts = [
            jax.lax.slice_in_dim(largest, start, start + last, stride, axis=axis)
            for start in range(size)
        ]
        largest = functools.reduce(jnp.maximum, shifts)
    return dataclasses.replace(x, values=largest)


def adaptive_average_pool(x: Images, size: int) -> Images:
    """Returns `size` x `size` means over nearly equal parts of the image, as PyTorch divides it.

    Part i of a side of h pixels goes from floor(i h / size) to ceil((i + 1) h / size), so that
    parts overlap, or repeat a pixel, where h is no multiple of `size`.

    Args:
      x: feature maps.
      size: side of the result, in pixels.
    """
    values = x.values
    for axis in (1, 2):
        side = values.shape[axis]
        if side == size:
            continue
        parts = [slice(i * side // size, -(-(i + 1) * side // size)) for i in range(size)]
        sliced = [
            jax.lax.slice_in_dim(values, part.start, part.stop, axis=axis).mean(axis)
            for part in parts
        ]
        values = jnp.stack(sliced, axis)
    return dataclasses.replace(x, values=values)


def _blocks(values: Float[Array, "before h w after"], size: int) -> Array:
    before, height, width, after = values.shape
    rows, columns = height // size, width // size
    whole = values[:, : rows * size, : columns * size]
    return whole.reshape(before, rows, size, columns, size, after)


@jax.custom_jvp
def _block_max(
    blocks: Float[Array, "before h p w p after"],
) -> Float[Array, "before h w after"]:
    return functools.reduce(jnp.maximum, _members(blocks))


@_block_max.defjvp
def _block_max_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Float[Array, "before h w after"], Float[Array, "before h w after"]]:
    # The rule of jnp.max, three times as fast on a CPU: a chain of maximum in the place of XLA's
    # reduction, forward and for the count. The division also keeps XLA from computing the cotangent
    # anew for every member of its block.
    (blocks,), (tangent,) = primals, tangents
    largest = _block_max(blocks)
    ties = sum((member == largest).astype(largest.dtype) for member in _members(blocks))
    is_largest = blocks == largest[:, :, None, :, None]
    # Where XLA rounds the input differently in two kernels, no member may equal the maximum.
    return largest, jnp.where(is_largest, tangent, 0).sum((2, 4)) / jnp.maximum(ties, 1)


def _members(blocks: Float[Array, "before h p w p after"]) -> list[Array]:
    size = blocks.shape[2]
    return [blocks[:, :, a, :, b] for a in range(size) for b in range(size)]


def global_average_pool(x: Images) -> Float[Array, "n c"]:
    """Returns the mean of each channel over the image."""
    means = x.values.mean((1, 2))
    return means.T if x.implementation == "patches" else means


def batch_norm(x: Images, train: bool, *, name: str, use_scale: bool = True) -> Images:
    """Returns the images normalised channel by channel, then scaled and shifted.

    In training mode by the batch's mean and (biased) variance, which also move the running
    statistics, r <- .9 r + .1 batch; in evaluation mode by the running statistics. To be called in
    the `nn.compact` method of a module, which then holds the parameters.

    Args:
      x: feature maps.
      train: whether the batch's statistics are used.
      name: of the parameters in the calling module.
      use_scale: whether channels are scaled; they are shifted always.
    """
    norm = nn.BatchNorm(
        use_running_average=not train,
        axis=x.channel_axis,
        momentum=0.9,
        epsilon=1e-5,
        use_scale=use_scale,
        name=name,
    )
    return x.map(norm)
