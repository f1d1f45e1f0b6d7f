"""Rows shared out over the devices of a mesh, and products of all rows with all rows among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

L = TypeVar("L")
R = TypeVar("R")
T = TypeVar("T")
WHOLE = PartitionSpec()


def rows_of(mesh: Mesh) -> PartitionSpec:
    """Returns how rows are shared out over a mesh.

    Raises:
      ValueError: a mesh of several axes, over which there is more than one way.
    """
    if len(mesh.axis_names) != 1:
        raise ValueError(f"mesh must have one axis, over which rows are shared, got {mesh.shape}")
    return PartitionSpec(mesh.axis_names[0])


def check_shares(n: int, mesh: Mesh) -> None:
    """Raises ValueError if `n` rows cannot be shared out evenly."""
    rows_of(mesh)
    if n % mesh.size:
        raise ValueError(
            f"{n} rows cannot be shared out evenly over {mesh.size} devices; "
            f"take {n - n % mesh.size} rows, or other devices"
        )


def share_rows(arrays: T, mesh: Mesh) -> T:
    """Returns arrays [n, ...] with equally many successive rows on each device."""
    sharding = NamedSharding(mesh, rows_of(mesh))
    found: T = jax.tree.map(lambda array: jax.device_put(array, sharding), arrays)
    return found


def copy_to_all(tree: T, mesh: Mesh) -> T:
    """Returns the arrays with a copy on each device."""
    found: T = jax.device_put(tree, NamedSharding(mesh, WHOLE))
    return found


def constrain_rows(arrays: T, mesh: Mesh) -> T:
    """Returns arrays [n, ...] of a compiled function, shared out as by `share_rows`."""
    found: T = jax.lax.with_sharding_constraint(arrays, NamedSharding(mesh, rows_of(mesh)))
    return found


def constrain_to_all(tree: T, mesh: Mesh) -> T:
    """Returns the arrays of a compiled function with a copy on each device."""
    found: T = jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, WHOLE))
    return found


def products_around(
    products: Callable[[L, R], Array], left: L, right: R, mesh: Mesh, *, axis: int
) -> Array:
    """Returns the products of a device's own rows with the rows of all devices.

    To be called within `shard_map`. The devices pass `right` on around a ring, so that each holds
    its own rows and those of one other at a time.

    Args:
      products: (rows, rows) -> their products, with the second rows along `axis`.
      left: this device's rows.
      right: likewise, those that go around.
      mesh: of one axis.
      axis: along which the products with all rows are joined, in the rows' order.
    """
    (name,), size = mesh.axis_names, mesh.size
    onward = [(device, (device - 1) % size) for device in range(size)]
    blocks = []
    for step in range(size):
        blocks.append(products(left, right))
        if step < size - 1:
            right = jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, name, onward), right)
    # After k steps a device holds the rows of the one k places behind it.
    order = (np.arange(size) - jax.lax.axis_index(name)) % size
    ordered = jnp.stack(blocks)[order]
    return jnp.concatenate(list(ordered), axis=axis)
