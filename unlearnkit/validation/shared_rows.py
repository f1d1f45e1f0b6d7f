"""Facts about an array of examples from one pass: its range, and a hash of each row.

Both are kept as long as the array lives, so that a dataset is read once per process.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt64

from unlearnkit.host.arrays import on_host

_BLOCK = 2**22
"""Numbers that are hashed at a time."""


class Range(NamedTuple):
    """The least and the greatest value, and whether all are whole numbers."""

    low: float
    high: float
    whole: bool


class _Handle:
    """Stands for one array: equal to itself as long as that array lives, and to nothing else."""

    def __init__(self, array: Any) -> None:
        self.array = weakref.ref(array)
        self.name = id(array)

    def __hash__(self) -> int:
        return self.name

    def __eq__(self, other: object) -> bool:
        mine = self.array()
        return isinstance(other, _Handle) and mine is not None and mine is other.array()


def range_of(x: Any) -> Range:
    """Returns the range of an array that holds at least one number, all finite."""
    return _range(_Handle(x)) if isinstance(x, jax.Array) else _measure(x)


def row_hashes(x: Any) -> UInt64[np.ndarray, " n"]:
    """Returns a 64-bit hash of each row x[i] to its last bit; +0 and -0 are equal."""
    return _hashes(_Handle(x)) if isinstance(x, jax.Array) else _hash(x)


def count_shared(one: Sequence[Any], other: Sequence[Any]) -> tuple[int, int]:
    """Returns how many rows of `one` are in `other` too, and how many were compared.

    That is the number of rows of the smaller side: a part that is contained in a whole is all
    shared, whichever it is.

    Args:
      one: arrays [n, ...].
      other: arrays [m, ...].
    """
    mine, theirs = (np.concatenate([row_hashes(x) for x in side]) for side in (one, other))
    shorter, longer = sorted((mine, theirs), key=len)
    return int(np.isin(shorter, longer).sum()), len(shorter)


@lru_cache(maxsize=64)
def _range(handle: _Handle) -> Range:
    return _measure(handle.array())


@lru_cache(maxsize=64)
def _hashes(handle: _Handle) -> np.ndarray:
    return _hash(handle.array())


def _measure(x: Any) -> Range:
    x = on_host(x)
    low, high = float(x.min()), float(x.max())
    # Only what may be counted in bytes is asked for whole numbers, which costs a copy.
    whole = low >= 0 and 1 < high <= 255 and bool((x == x.round()).all())
    return Range(low, high, whole)


def _hash(x: Any) -> np.ndarray:
    """A multilinear hash modulo 2^64 of the rows' words of 32 bits, its high bits mixed down."""
    n, width = len(x), int(np.prod(x.shape[1:], dtype=np.int64))
    rows = max(1, _BLOCK // max(width, 1))
    factors: np.ndarray | None = None
    parts = []
    for start in range(0, n, rows):
        block = np.asarray(x[start : start + rows])
        flat = np.ascontiguousarray(block.reshape(len(block), width) + 0)
        words = flat.view(f"uint{8 * min(flat.dtype.itemsize, 4)}")
        if factors is None:
            bits = np.random.default_rng(0).integers(0, 2**63, words.shape[1], np.uint64)
            factors = 2 * bits + 1
        parts.append((words.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64))
    total = np.concatenate(parts)
    found: np.ndarray = (total ^ (total >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return found
