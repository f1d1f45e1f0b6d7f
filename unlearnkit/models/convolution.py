"""Convolution whose derivatives are fast inside a compiled loop on a CPU.

XLA's own convolution runs at the processor's arithmetic forward, but its derivative by the kernel
does not, and inside a loop neither derivative does (jax-ml/jax#12868). The three products of

    y[n, i, j, o] = Σ_abc x[n, s i + a - p, s j + b - p, c] k[a, b, c, o]

with one of x, k, y summed out against the other two are here primitives of their own, each linear
in both of its arguments:

    convolve(x, k)       -> y      XLA's convolution
    _transpose(y, k)     -> x      XLA's convolution with the mirrored kernel, s² images at once
    _correlate(x, y)     -> k      one matrix product per row of the kernel

The derivative of each by either argument is another of the three, so that gradients, Jacobian- and
Hessian-vector products of any order are made of them alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

_CACHED_VALUES = 2**17
"""How many shifted values `_correlate` holds at once: half a MiB of float32."""


class _Window(NamedTuple):
    """The static options of the three products.

    Attributes:
      stride: step between outputs, in pixels.
      padding: zeros on each side of the input, in pixels.
      size: height and width of the kernel.
      input: height and width of x.
    """

    stride: int
    padding: int
    size: tuple[int, int]
    input: tuple[int, int]

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of y."""
        rows, columns = (
            (side + 2 * self.padding - size) // self.stride + 1
            for side, size in zip(self.input, self.size, strict=True)
        )
        return rows, columns


def convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "s t c o"],
    *,
    stride: int = 1,
    padding: int = 0,
) -> Float[Array, "n i j o"]:
    """Returns the cross-correlation of `x` with `kernel`.

    Args:
      x: images, channels last.
      kernel: [height, width, channels, features].
      stride: step between outputs, in pixels.
      padding: zeros on each side of `x`, in pixels.
    """
    height, width = kernel.shape[:2]
    window = _Window(stride, padding, (height, width), (x.shape[1], x.shape[2]))
    found: Array = _convolve_p.bind(x, kernel, window=window)
    return found


def _convolve(x: Array, kernel: Array, *, window: _Window) -> Array:
    return _xla_convolution(x, kernel, window.stride, [(window.padding,) * 2] * 2)


def _transpose(y: Array, kernel: Array, *, window: _Window) -> Array:
    """Returns Σ_ijo y[n, i, j, o] k[a, b, c, o], at the pixel of x that each (i, j, a, b) reads."""
    stride, padding, (height, width) = window.stride, window.padding, window.size
    channels, features = kernel.shape[2:]
    taps = tuple(-(-side // stride) for side in (height, width))
    # Pixel s u + r of the padded x gets tap s t + r of the kernel from output u - t.
    kernel = jnp.pad(
        kernel,
        (
            (0, taps[0] * stride - height),
            (0, taps[1] * stride - width),
            (0, 0),
            (0, 0),
        ),
    )
    kernel = kernel.reshape(taps[0], stride, taps[1], stride, channels, features)
    kernel = kernel[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
    kernel = kernel.reshape(*taps, features, stride * stride * channels)
    before = [padding // stride for _ in range(2)]
    needed = [
        -(-(side + padding) // stride) - start
        for side, start in zip(window.input, before, strict=True)
    ]
    margins = [
        (tap - 1 - start, start + count - side)
        for tap, start, count, side in zip(taps, before, needed, y.shape[1:3], strict=True)
    ]
    blocks = _xla_convolution(y, kernel, 1, margins)
    n, rows, columns, _ = blocks.shape
    x = blocks.reshape(n, rows, columns, stride, stride, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(n, rows * stride, columns * stride, channels)
    first = padding - before[0] * stride
    return x[:, first : first + window.input[0], first : first + window.input[1]]


def _correlate(x: Array, y: Array, *, window: _Window) -> Array:
    """Returns Σ_nij x[n, s i + a - p, s j + b - p, c] y[n, i, j, o].

    The images are taken a few at a time: the shifted copies of all of them at once would not stay
    in a core's cache, which makes this two to three times slower.
    """
    columns = window.output[1]
    values = (window.input[0] + 2 * window.padding) * columns * window.size[1] * x.shape[3]
    few = max(1, _CACHED_VALUES // max(values, 1))
    n = x.shape[0]
    if few >= n:
        return _correlate_few(x, y, window=window)
    whole = n - n % few

    def add(total: Array, start: Array) -> tuple[Array, None]:
        images, maps = (jax.lax.dynamic_slice_in_dim(a, start, few) for a in (x, y))
        return total + _correlate_few(images, maps, window=window), None

    shape = (*window.size, x.shape[3], y.shape[3])
    total, _ = jax.lax.scan(add, jnp.zeros(shape, x.dtype), jnp.arange(0, whole, few))
    if whole == n:
        return total
    return total + _correlate_few(x[whole:], y[whole:], window=window)


def _correlate_few(x: Array, y: Array, *, window: _Window) -> Array:
    stride, (height, width) = window.stride, window.size
    rows, columns = window.output
    channels, features = x.shape[3], y.shape[3]
    margin = (window.padding, window.padding)
    x = jnp.pad(x, ((0, 0), margin, margin, (0, 0)))
    last = stride * (columns - 1) + 1
    shifted = jnp.concatenate([x[:, :, b : b + last : stride] for b in range(width)], axis=3)
    y = y.reshape(-1, features)
    reach = stride * (rows - 1) + 1
    products = [
        shifted[:, a : a + reach : stride].reshape(-1, width * channels).T @ y
        for a in range(height)
    ]
    return jnp.stack(products).reshape(height, width, channels, features)


def _xla_convolution(x: Array, kernel: Array, stride: int, margins: list[tuple[int, int]]) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), margins, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _primitive(name: str, function: Callable[..., Array]) -> Primitive:
    """Returns the primitive that computes `function(left, right, window=...)`."""
    primitive = Primitive(name)
    primitive.def_impl(partial(jax.jit, static_argnames=("window",))(function))
    primitive.def_abstract_eval(partial(_shape_of, function))
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    return primitive


def _shape_of(function: Callable[..., Array], left: Any, right: Any, *, window: _Window) -> Any:
    shaped = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (left, right)]
    out = jax.eval_shape(partial(function, window=window), *shaped)
    return left.update(shape=out.shape, dtype=out.dtype)


_convolve_p = _primitive("convolve", _convolve)
_transpose_p = _primitive("convolve_transpose", _transpose)
_correlate_p = _primitive("convolve_correlate", _correlate)

ad.defbilinear(
    _convolve_p,
    lambda y, x, kernel, window: _transpose_p.bind(y, kernel, window=window),
    lambda y, x, kernel, window: _correlate_p.bind(x, y, window=window),
)
ad.defbilinear(
    _transpose_p,
    lambda x, y, kernel, window: _convolve_p.bind(x, kernel, window=window),
    lambda x, y, kernel, window: _correlate_p.bind(x, y, window=window),
)
ad.defbilinear(
    _correlate_p,
    lambda kernel, x, y, window: _transpose_p.bind(y, kernel, window=window),
    lambda kernel, x, y, window: _convolve_p.bind(x, kernel, window=window),
)


class _Fold(NamedTuple):
    """Where a batch of one argument goes, so that one call does the work of all.

    Attributes:
      into: the axis of that argument (without the batch) that takes the batch in.
      out: the axis of the result that then holds it.
    """

    into: int
    out: int


def _batch(
    primitive: Primitive,
    folds: tuple[_Fold, _Fold],
    arrays: tuple[Array, Array],
    axes: tuple[int | None, int | None],
    *,
    window: _Window,
) -> tuple[Array, int]:
    left, right = axes
    if left is not None and right is not None:
        fronted = (jnp.moveaxis(arrays[0], left, 0), jnp.moveaxis(arrays[1], right, 0))
        return _both_batched(primitive, *fronted, window=window), 0
    which, axis = (0, left) if left is not None else (1, right)
    assert axis is not None
    fold = folds[which]
    batched = jnp.moveaxis(arrays[which], axis, fold.into)
    size = batched.shape[fold.into]
    shape = list(batched.shape)
    shape[fold.into : fold.into + 2] = [-1]
    operands = [*arrays]
    operands[which] = batched.reshape(shape)
    out = primitive.bind(*operands, window=window)
    unfolded = [*out.shape]
    unfolded[fold.out : fold.out + 1] = [size, -1]
    return out.reshape(unfolded), fold.out


def _both_batched(primitive: Primitive, left: Array, right: Array, *, window: _Window) -> Array:
    if primitive is _correlate_p:  # matrix products, which batch well
        return jax.vmap(partial(_correlate, window=window))(left, right)
    # One after another: XLA's convolution in groups is slow on a CPU.
    found: Array = jax.lax.map(lambda pair: primitive.bind(*pair, window=window), (left, right))
    return found


_IMAGES, _CHANNELS, _FEATURES = 0, 2, 3  # of x and y; of the kernel
for _p, _folds in (
    (_convolve_p, (_Fold(_IMAGES, _IMAGES), _Fold(_FEATURES, 3))),
    (_transpose_p, (_Fold(_IMAGES, _IMAGES), _Fold(_CHANNELS, 3))),
    (_correlate_p, (_Fold(3, _CHANNELS), _Fold(3, _FEATURES))),
):
    batching.primitive_batchers[_p] = partial(_batch, _p, _folds)
