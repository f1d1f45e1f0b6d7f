"""Convolution as one matrix product over the shifts of a batch-last image.

With x [c, h, w, n] and a kernel of side s, the patch matrix P [s s c, i j n] stacks the s s shifts
of x, and y = W^T P. It is plain JAX, bilinear in x and W, so that gradients, Jacobian- and
Hessian-vector products and `vmap` are those of slices and of one matrix product.

What makes it fast on a CPU:

- Columns are shifted first and rows after: 2 s slices in the place of s s.
- Few features leave a matrix product waiting for memory. Their outputs are computed in blocks of
  2x2 pixels, as 4 o features of a convolution with stride 2 and kernels of side s + 1: P has
  (s + 1)^2 / 4 rows per pixel in the place of s^2, for (s + 1)^2 / s^2 times the multiplications.
- The bias is a row of the product, and so is its gradient.
"""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Pair: TypeAlias = tuple[int, int]
_MOST_FEATURES_IN_BLOCKS = 16


def convolve(
    x: Float[Array, "c h w n"],
    kernel: Float[Array, "s t c o"],
    bias: Float[Array, " o"] | None,
    *,
    stride: int | Pair,
    padding: int | tuple[Pair, Pair],
) -> Float[Array, "o i j n"]:
    """Returns the cross-correlation of `x` with `kernel`, plus `bias`.

    Args:
      x: images, batch last.
      kernel: [height, width, channels, features].
      bias: one value per feature, or None.
      stride: step between outputs, in pixels; of rows and of columns where there are two.
      padding: zeros on each side of `x`, in pixels; (above, below), (left, right) where they
        differ.
    """
    steps = (stride, stride) if isinstance(stride, int) else stride
    sides = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    size, width, _, features = kernel.shape
    even = len({*sides[0], *sides[1]}) == 1 and size == width > 1
    if steps == (1, 1) and even and features <= _MOST_FEATURES_IN_BLOCKS:
        return _convolve_in_blocks(x, kernel, bias, sides[0][0])
    return _correlate(_pad(x, *sides), kernel, bias, steps)


def _convolve_in_blocks(
    x: Float[Array, "c h w n"],
    kernel: Float[Array, "s s c o"],
    bias: Float[Array, " o"] | None,
    padding: int,
) -> Float[Array, "o i j n"]:
    size, features = kernel.shape[0], kernel.shape[3]
    height, width = (side + 2 * padding - size + 1 for side in x.shape[1:3])
    shifts = (size + 2) // 2
    rows, columns = (height + 1) // 2, (width + 1) // 2
    missing = [
        2 * (blocks + shifts - 1) - side - padding
        for blocks, side in zip((rows, columns), x.shape[1:3], strict=True)
    ]
    x = _space_to_depth(_pad(x, (padding, missing[0]), (padding, missing[1])))
    block_bias = None if bias is None else jnp.tile(bias, 4)
    y = _correlate(x, _block_kernel(kernel, shifts), block_bias, (1, 1))
    y = y.reshape(2, 2, features, rows, columns, -1).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(features, 2 * rows, 2 * columns, -1)[:, :height, :width]


def _space_to_depth(x: Float[Array, "c h w n"]) -> Float[Array, "4*c h//2 w//2 n"]:
    channels, height, width, n = x.shape
    x = x.reshape(channels, height // 2, 2, width // 2, 2, n).transpose(2, 4, 0, 1, 3, 5)
    return x.reshape(4 * channels, height // 2, width // 2, n)


def _block_kernel(kernel: Float[Array, "s s c o"], shifts: int) -> Float[Array, "q q 4*c 4*o"]:
    """Returns the kernel that maps `_space_to_depth` of the input to that of the output."""
    size, _, channels, features = kernel.shape
    free = 2 * shifts - size
    moved = jnp.stack(
        [
            jnp.pad(kernel, ((u, free - u), (v, free - v), (0, 0), (0, 0)))
            for u in range(2)
            for v in range(2)
        ],
        axis=-2,
    )
    moved = moved.reshape(shifts, 2, shifts, 2, channels, 4 * features)
    return moved.transpose(0, 2, 1, 3, 4, 5).reshape(shifts, shifts, 4 * channels, 4 * features)


def _correlate(
    x: Float[Array, "c h w n"],
    kernel: Float[Array, "s t c o"],
    bias: Float[Array, " o"] | None,
    steps: Pair,
) -> Float[Array, "o i j n"]:
    rows, columns, _, features = kernel.shape
    weights = kernel.reshape(-1, features)
    patches = [_shifts(_shifts(x, columns, steps[1], axis=2), rows, steps[0], axis=1)]
    _, height, width, n = patches[0].shape
    if bias is not None:
        weights = jnp.concatenate([weights, bias[None]])
        patches.append(jnp.ones((1, height, width, n), x.dtype))
    stacked = jnp.concatenate(patches).reshape(weights.shape[0], -1)
    return (weights.T @ stacked).reshape(features, height, width, n)


def _shifts(x: Float[Array, "c h w n"], size: int, stride: int, axis: int) -> Array:
    last = x.shape[axis] - size + 1
    return jnp.concatenate(
        [jax.lax.slice_in_dim(x, start, start + last, stride, axis=axis) for start in range(size)]
    )


def _pad(x: Float[Array, "c h w n"], rows: Pair, columns: Pair) -> Array:
    return jnp.pad(x, ((0, 0), rows, columns, (0, 0)))
