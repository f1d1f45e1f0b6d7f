"""Checks row indices on the host: JAX would clamp those that are out of range."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_rows(rows: Any, n: int, *, name: str = "indices", of: str = "the data") -> Any:
    """Returns row indices in 0, ..., n - 1, or raises an error if they are invalid.

    Negative indices are refused too: in a list of rows they are more often a marker for "none" than
    a count from the end. Under tracing the values are not known, and only type and shape are
    checked, which costs the compiled program nothing.

    Args:
      rows: [m] integers, or [n] booleans that are true where an example is taken.
      n: the number of examples.
      name: what the message calls the rows.
      of: what it calls the examples.

    Returns:
      [m] integers; traced, or on the device, where the given ones are.

    Raises:
      TypeError: neither integers nor booleans.
      ValueError: not one list, out of range, or booleans of another number than n.
    """
    traced = isinstance(rows, jax.core.Tracer)
    found = rows if traced else _on_host(rows, name)
    if found.ndim != 1:
        raise ValueError(
            f"{name} must be one list [m], got the shape {list(found.shape)}; "
            "name a single example as [i], and ravel a table of rows"
        )
    is_mask = jnp.issubdtype(found.dtype, jnp.bool_)
    if not is_mask and not jnp.issubdtype(found.dtype, jnp.integer):
        raise TypeError(
            f"{name} must be integers or booleans, got {found.dtype}; "
            "convert whole numbers with astype(numpy.int64)"
        )
    if is_mask and len(found) != n:
        raise ValueError(
            f"{name} that are booleans must be {n}, one for each example of {of}, "
            f"got {len(found)}; give integers to name only some"
        )
    if traced:
        return rows
    if is_mask:
        return np.flatnonzero(found)
    wrong = np.flatnonzero((found < 0) | (found >= n))
    if wrong.size:
        raise ValueError(
            f"{name} must be rows of {of}, 0 … {n - 1}, got {found[wrong[0]]} at position "
            f"{wrong[0]} ({wrong.size} such); leave them out, or count from the front"
        )
    return rows if isinstance(rows, jax.Array) else found


def _on_host(rows: Any, name: str) -> np.ndarray:
    try:
        found = np.asarray(rows)
    except ValueError:
        raise ValueError(f"{name} must be one list of integers, got lists of lists") from None
    return found.astype(np.int32) if found.ndim == 1 and not found.size else found
