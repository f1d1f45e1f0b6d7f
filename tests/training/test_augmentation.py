"""Shifts between pixels."""

import jax
import jax.numpy as jnp
import numpy as np

from unlearnkit.training.augmentation import glide_images

KEY = jax.random.key(0)


def test_a_ramp_moves_by_what_lies_between_pixels():
    """On x + 10 y bilinear interpolation is exact: every inner entry changes by one amount."""
    rows, columns = np.mgrid[:12, :12].astype(np.float32)
    x = jnp.asarray(np.broadcast_to((columns + 10 * rows)[None, :, :, None], (30, 12, 12, 1)))
    moved = jax.jit(lambda x: glide_images(KEY, x, by=2, fill=jnp.array([-7.0])))(x)
    inner = np.asarray(moved - x)[:, 3:-3, 3:-3, 0]
    np.testing.assert_allclose(inner, inner[:, :1, :1] + 0 * inner, atol=1e-4)
    down = np.asarray(glide_images(KEY, x * 0 + rows[:, :, None], by=2, fill=jnp.zeros(1)))
    down = (down - rows[:, :, None])[:, 6, 6, 0]
    right = inner[:, 0, 0] - 10 * down
    for way in (down, right):
        assert np.abs(way).max() <= 2
        assert way.min() < -1 < 1 < way.max()
        assert np.abs(way - np.round(way)).max() > 0.3
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.5


def test_what_is_shifted_in_is_the_fill():
    x = jnp.full((20, 6, 6, 2), 5.0)
    moved = np.asarray(glide_images(KEY, x, by=2, fill=jnp.array([1.0, 3.0])))
    assert (moved[..., 0].min(), moved[..., 1].min()) == (1.0, 3.0)
    assert moved.max() == 5.0
