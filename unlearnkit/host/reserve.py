"""Data of any size in room of few sizes, so that programs compiled for one size serve others."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")

LEAST = 256
"""The smallest room, in examples."""
FINE = 4096
"""Up to here room doubles; above, it grows by an eighth of a doubling."""
LARGEST_BYTES = 64 * 2**20
"""Larger data are left as they are: copying them costs more than compiling for them."""


def room_for(n: int) -> int:
    """Returns the room that n examples are given: at least n, and of few values.

    Example:
      room_for(300)     # 512
    """
    if n <= LEAST:
        return LEAST
    doubled = 1 << (n - 1).bit_length()
    if doubled <= FINE:
        return doubled
    step = doubled // 16
    return -(-n // step) * step


def reserve(tree: T) -> T:
    """Returns arrays [n, ...] as arrays [room_for(n), ...], zeros behind the examples.

    What names rows below n sees no difference. It is for indexing in training, where no batch may
    hold a row that is no example, and for evaluation whose results are cut to n. Traced arrays, and
    more than 64 MiB, are returned as they are; so is what has its room already.

    Args:
      tree: a pytree of arrays with one leading axis.
    """
    leaves = jax.tree.leaves(tree)
    if not leaves or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return tree
    n = leaves[0].shape[0]
    room = room_for(n)
    row_bytes = sum(leaf.nbytes for leaf in leaves) / max(n, 1)
    if room == n or room * row_bytes > LARGEST_BYTES:
        return tree
    found: T = jax.tree.map(lambda leaf: _extended(leaf, room), tree)
    return found


def _extended(array: Any, room: int) -> jax.Array:
    held = np.zeros((room, *array.shape[1:]), array.dtype)
    held[: array.shape[0]] = np.asarray(array)
    committed = isinstance(array, jax.Array) and array.committed
    found: jax.Array = jax.device_put(held, array.sharding if committed else None)
    return found
