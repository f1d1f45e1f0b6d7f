"""Random shifts and mirrors of images, per example."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def shift_images(
    key: Key[Array, ""], x: Float[Array, "n h w c"], *, by: int, fill: Float[Array, "#c"]
) -> Float[Array, "n h w c"]:
    """Returns each image moved by its own uniform offset in {-by, ..., by}².

    Args:
      key: a typed key.
      x: images.
      by: the largest offset, in pixels.
      fill: the value that is shifted in, as the network sees a black pixel.
    """
    n, height, width, _ = x.shape
    rows, columns = jax.random.randint(key, (2, n), 0, 2 * by + 1)
    padded = _pad(x, by, fill)
    row_index = rows[:, None] + jnp.arange(height)
    column_index = columns[:, None] + jnp.arange(width)
    moved = jnp.take_along_axis(padded, row_index[:, :, None, None], axis=1)
    return jnp.take_along_axis(moved, column_index[:, None, :, None], axis=2)


def glide_images(
    key: Key[Array, ""], x: Float[Array, "n h w c"], *, by: int, fill: Float[Array, "#c"]
) -> Float[Array, "n h w c"]:
    """Returns each image moved by its own uniform offset in [-by, by]², interpolated bilinearly.

    Args:
      key: a typed key.
      x: images.
      by: the largest offset, in pixels.
      fill: the value that is shifted in, as the network sees a black pixel.
    """
    n, height, width, _ = x.shape
    offset = jax.random.uniform(key, (2, n), maxval=2 * by)
    whole = jnp.minimum(jnp.floor(offset), 2 * by - 1)
    rows, columns = whole.astype(jnp.int32)
    down, right = (offset - whole).astype(x.dtype)[:, :, None, None, None]
    padded = _pad(x, by, fill)
    row_index = rows[:, None] + jnp.arange(height + 1)
    moved = jnp.take_along_axis(padded, row_index[:, :, None, None], axis=1)
    moved = (1 - down) * moved[:, :-1] + down * moved[:, 1:]
    column_index = columns[:, None] + jnp.arange(width + 1)
    moved = jnp.take_along_axis(moved, column_index[:, None, :, None], axis=2)
    found: Array = (1 - right) * moved[:, :, :-1] + right * moved[:, :, 1:]
    return found


def _pad(x: Float[Array, "n h w c"], by: int, fill: Float[Array, "#c"]) -> Array:
    """Returns images in a frame that is `by` pixels wide."""
    n, height, width, channels = x.shape
    padded = jnp.broadcast_to(fill, (n, height + 2 * by, width + 2 * by, channels)).astype(x.dtype)
    return padded.at[:, by : by + height, by : by + width].set(x)


def flip_images(key: Key[Array, ""], x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Returns each image mirrored left to right with probability 1/2."""
    mirrored = jax.random.bernoulli(key, shape=(x.shape[0], 1, 1, 1))
    return jnp.where(mirrored, x[:, :, ::-1], x)
