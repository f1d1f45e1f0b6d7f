"""Indices given by a user: their types and their ranges."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_indices(values: Any, *, name: str = "indices") -> np.ndarray:
    """Returns integers or booleans, after checking all that does not need the training set.

    Args:
      values: [m] integers, or [n] booleans.
      name: what the message calls them.

    Raises:
      TypeError: neither integers nor booleans.
      ValueError: empty, or not one list.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.asarray(values, dtype=object)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one list, got the shape {list(array.shape)}")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty: there would be nothing to forget")
    if array.dtype != np.bool_ and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(
            f"{name} must be integers or booleans, got {array.dtype}; "
            "convert whole numbers with astype(numpy.int64)"
        )
    return array


def check_forget(chosen: np.ndarray, n: int) -> np.ndarray:
    """Returns ascending indices of some, but not all, of `n` training examples.

    Args:
      chosen: [m] distinct integers in 0, ..., n - 1, or [n] booleans.
      n: the size of the training set.

    Raises:
      ValueError: out of range, duplicate, none, all, or booleans of another length.
    """
    if chosen.dtype == np.bool_:
        if len(chosen) != n:
            raise ValueError(
                f"booleans must be {n}, one per training example, got {len(chosen)}; "
                "give indices to name only some"
            )
        chosen = np.flatnonzero(chosen)
    wrong = np.flatnonzero((chosen < 0) | (chosen >= n))
    if wrong.size:
        raise ValueError(
            f"indices must lie in 0, ..., {n - 1} (the training set has {n} examples), "
            f"got {chosen[wrong[0]]} at position {wrong[0]}"
        )
    unique, counts = np.unique(chosen, return_counts=True)
    if (counts > 1).any():
        repeated = unique[counts > 1]
        raise ValueError(
            f"indices must be distinct, got {repeated[0]} {counts[counts > 1][0]} times "
            f"({len(repeated)} indices are repeated); remove the duplicates"
        )
    if not unique.size:
        raise ValueError("the forget set must not be empty: no training example was chosen")
    if len(unique) == n:
        raise ValueError(
            f"the forget set must not be the whole training set, got all {n} examples; "
            "with nothing to retain, train a new network instead"
        )
    return unique
