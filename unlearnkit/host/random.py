"""JAX's random bits, drawn on the host: the same numbers without a program for each shape.

A batch order depends on the number of examples, and JAX compiles a program for each number. A
`HostKey` draws what `jax.random` draws, bit by bit, from the bits of a key of its default generator
(Threefry 2x32, `jax_threefry_partitionable` on). For other generators `host_key` returns a key that
asks `jax.random`.

Source: Salmon et al. 2011 (Threefry); `jax.random` of JAX 0.5 and later for how its bits are used.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_IMPLEMENTATION = "threefry2x32"
_FEW = 8


class HostKey(NamedTuple):
    """A key whose bits are on the host; its methods are the functions of `jax.random`.

    Attributes:
      bits: [2].
    """

    bits: UInt32[np.ndarray, " 2"]

    def split(self, count: int = 2) -> tuple[HostKey, ...]:
        """Returns `count` keys, see `jax.random.split`."""
        if count > _FEW:
            first, second = _hash(self.bits, *_counts(count))
            return tuple(HostKey(bits) for bits in np.stack([first, second], axis=1))
        return tuple(HostKey(_hash_one(self.bits, 0, index)) for index in range(count))

    def fold_in(self, number: int) -> HostKey:
        """Returns the key of a number, see `jax.random.fold_in`."""
        return HostKey(_hash_one(self.bits, 0, number % 2**32))

    def permutation(self, n: int) -> Int[np.ndarray, " n"]:
        """Returns range(n) in random order, see `jax.random.permutation`."""
        key, order = self, np.arange(n, dtype=np.int32)
        # As many stable sorts by 32 random bits as make equal keys in all of them unlikely.
        rounds = math.ceil(3 * math.log(max(1, n)) / math.log(2**32 - 1))
        for _ in range(rounds):
            key, drawn = key.split()
            order = order[np.argsort(drawn._draw(n), kind="stable")]
        return order

    def randint(self, n: int, high: int) -> Int[np.ndarray, " n"]:
        """Returns n int32 below `high`, see `jax.random.randint`."""
        upper, lower = (key._draw(n) for key in self.split())
        span = np.array([high], np.uint32)
        factor = np.uint32(2**16) % span
        # Products wrap around, as those of 32 bits do there.
        factor = factor * factor % span
        return ((upper % span * factor + lower % span) % span).astype(np.int32)

    def typed(self) -> Key[Array, ""]:
        """Returns the key that `jax.random` takes."""
        found: Array = jax.random.wrap_key_data(jax.device_put(self.bits), impl=_IMPLEMENTATION)
        return found

    def _draw(self, n: int) -> UInt32[np.ndarray, " n"]:
        first, second = _hash(self.bits, *_counts(n))
        found: np.ndarray = first ^ second
        return found


class DeviceKey(NamedTuple):
    """A key of another generator, which `jax.random` is asked about; see `HostKey`."""

    key: Key[Array, ""]

    def split(self, count: int = 2) -> tuple[DeviceKey, ...]:
        """Returns `count` keys."""
        return tuple(DeviceKey(key) for key in jax.random.split(self.key, count))

    def fold_in(self, number: int) -> DeviceKey:
        """Returns the key of a number."""
        return DeviceKey(jax.random.fold_in(self.key, number))

    def permutation(self, n: int) -> Int[np.ndarray, " n"]:
        """Returns range(n) in random order."""
        return np.asarray(jax.random.permutation(self.key, n)).astype(np.int32)

    def randint(self, n: int, high: int) -> Int[np.ndarray, " n"]:
        """Returns n int32 below `high`."""
        return np.asarray(jax.random.randint(self.key, (n,), 0, high, jnp.int32))

    def typed(self) -> Key[Array, ""]:
        """Returns the key that `jax.random` takes."""
        return self.key


AnyKey = HostKey | DeviceKey


def host_key(key: Key[Array, ""]) -> AnyKey:
    """Returns the key that draws on the host what `jax.random` draws from `key`.

    Example:
      order = host_key(jax.random.key(0)).permutation(1437)   # of jax.random, without a compilation
    """
    default = str(jax.random.key_impl(key)) == _IMPLEMENTATION
    if not default or not jax.config.values["jax_threefry_partitionable"]:
        return DeviceKey(key)
    return HostKey(np.asarray(jax.random.key_data(key)))


def _counts(n: int) -> tuple[UInt32[np.ndarray, " n"], UInt32[np.ndarray, " n"]]:
    if n >= 2**32:
        raise ValueError(f"at most {2**32 - 1} numbers can be drawn at once, got {n}")
    return np.zeros(n, np.uint32), np.arange(n, dtype=np.uint32)


def _hash_one(key: UInt32[np.ndarray, " 2"], first: int, second: int) -> UInt32[np.ndarray, " 2"]:
    """Returns `_hash` of one pair of counters; Python ends before NumPy has begun."""
    low = 2**32 - 1
    zeroth, other = int(key[0]), int(key[1])
    keys = (zeroth, other, zeroth ^ other ^ int(_PARITY))
    a, b = (first + keys[0]) & low, (second + keys[1]) & low
    for group in range(5):
        for turn in _ROTATIONS[group % 2]:
            a = (a + b) & low
            b = a ^ ((b << turn | b >> (32 - turn)) & low)
        a = (a + keys[(group + 1) % 3]) & low
        b = (b + keys[(group + 2) % 3] + group + 1) & low
    return np.array([a, b], np.uint32)


def _hash(
    key: UInt32[np.ndarray, " 2"], first: UInt32[np.ndarray, " n"], second: UInt32[np.ndarray, " n"]
) -> tuple[UInt32[np.ndarray, " n"], UInt32[np.ndarray, " n"]]:
    """Returns Threefry 2x32 with 20 rounds of the counters (first, second)."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    a, b = first + keys[0], second + keys[1]
    for group in range(5):
        for turn in _ROTATIONS[group % 2]:
            a = a + b
            b = a ^ (b << np.uint32(turn) | b >> np.uint32(32 - turn))
        a = a + keys[(group + 1) % 3]
        with np.errstate(over="ignore"):
            b = b + (keys[(group + 2) % 3] + np.uint32(group + 1))
    return a, b
