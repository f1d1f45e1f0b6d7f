"""Arrays that the host can read without a transfer: selected and joined there, by no program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def on_host(array: Any) -> Any:
    """Returns a NumPy view of an array of a CPU, and any other array (traced too) as it is.

    What is computed with NumPy from the view compiles nothing; on an accelerator the data stay
    where they are.

    Example:
      finite = np.isfinite(on_host(x)).all()
    """
    return np.asarray(array) if _is_on_cpu(array) else array


def put(values: Any) -> jax.Array:
    """Returns numbers of the host on the device, in JAX's precision; `jnp.asarray` compiles."""
    array = np.asarray(values)
    found: jax.Array = jax.device_put(array.astype(jax.dtypes.canonicalize_dtype(array.dtype)))
    return found


def take_rows(array: Any, rows: Any) -> Any:
    """Returns array[rows], where the array is.

    Args:
      array: [n, ...] of NumPy or JAX.
      rows: [m] integers or [n] booleans.
    """
    if not _is_on_cpu(array) or isinstance(rows, jax.core.Tracer):
        return array[rows]
    return _place_like(np.asarray(array)[np.asarray(rows)], array)


def concatenate_rows(arrays: Sequence[Any]) -> Any:
    """Returns arrays [n_i, ...] as one, where the first of them is."""
    if all(_is_on_cpu(array) for array in arrays):
        return _place_like(np.concatenate([np.asarray(array) for array in arrays]), arrays[0])
    return jnp.concatenate(arrays)


def replace_rows(array: Any, rows: np.ndarray, values: Any) -> Any:
    """Returns a copy of an array in which some rows are replaced, where the array is.

    Args:
      array: [n, ...] of NumPy or JAX.
      rows: [m] integers, none twice.
      values: [m, ...] what stands in them then.
    """
    if not _is_on_cpu(array):
        return array.at[rows].set(values)
    replaced = np.array(array)
    replaced[rows] = np.asarray(values)
    return _place_like(replaced, array)


def _is_on_cpu(array: Any) -> bool:
    if not isinstance(array, jax.Array) or isinstance(array, jax.core.Tracer):
        return False
    return len(array.devices()) == 1 and next(iter(array.devices())).platform == "cpu"


def _place_like(values: np.ndarray, array: jax.Array) -> jax.Array:
    found: jax.Array = jax.device_put(values, array.sharding if array.committed else None)
    return found
