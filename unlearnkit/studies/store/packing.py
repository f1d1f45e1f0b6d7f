"""Values as readable JSON and named arrays, and back: bit for bit, and nothing is ever a pickle.

What JSON has stands for itself. All else is an object whose first name begins with `$`: `$array`
(the array's name in the arrays' file), `$key` (the generator of one of JAX's keys), `$scalar` (a
number of NumPy, for the eye), `$float` (NaN and the infinities), `$tuple`, `$dict` (with names that
JSON would not keep) and `$record` (a NamedTuple or frozen dataclass of this library).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ROOT = "stage"
_PLAIN = (type(None), bool, int, str)
_NATIVE = frozenset(
    f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)
) - {"float8"} | {"bool"}
"""Dtypes that a file of safetensors holds as they are; of others it holds the bytes."""
_KINDS = "biufc"


def pack(value: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Returns a value as JSON, and its arrays by name.

    Args:
      value: numbers, text, None, arrays of NumPy and JAX, keys of JAX, dicts, lists, tuples, and
        NamedTuples and frozen dataclasses of this library of these.

    Raises:
      TypeError: anything else, by its place.
    """
    packer = _Packer()
    return packer.pack(value, _ROOT), packer.arrays


def unpack(packed: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Returns what `pack` was given; arrays of JAX are on the default device, without weak types.

    Raises:
      ValueError: not what `pack` returns, or a class that this release does not have so.
    """
    try:
        return _unpack(packed, arrays)
    except (KeyError, TypeError, AttributeError, ImportError) as error:
        raise ValueError(f"not what was packed: {error!r:.200}") from error


def is_frozen(kind: type) -> bool:
    """Returns whether a class is a frozen dataclass."""
    parameters = getattr(kind, "__dataclass_params__", None)
    return parameters is not None and parameters.frozen


class _Packer:
    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def pack(self, value: Any, where: str) -> Any:
        if type(value) in _PLAIN:
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self._pack_array(value, where)
        if type(value) is list:
            return self._pack_all(value, where)
        if type(value) is tuple:
            return {"$tuple": self._pack_all(value, where)}
        if type(value) is dict:
            return self._pack_dict(value, where)
        if _is_record(type(value)):
            names = _fields(type(value))
            parts = {n: self.pack(getattr(value, n), f"{where}/{n}") for n in names}
            return {"$record": _name(type(value)), **parts}
        raise TypeError(
            f"{where} is a {_name(type(value))}, which a store does not keep; give numbers, text, "
            "arrays, dicts, lists, tuples, and NamedTuples and frozen dataclasses of this library"
        )

    def _pack_all(self, values: Any, where: str) -> list[Any]:
        return [self.pack(part, f"{where}/{i}") for i, part in enumerate(values)]

    def _pack_dict(self, value: dict[Any, Any], where: str) -> dict[str, Any]:
        if wrong := [name for name in value if type(name) not in (str, int)]:
            raise TypeError(f"{where} has the name {wrong[0]!r}; names must be text or integers")
        parts = {name: self.pack(part, f"{where}/{name}") for name, part in value.items()}
        if all(type(name) is str and not name.startswith("$") for name in parts):
            return parts
        return {"$dict": [[name, part] for name, part in parts.items()]}

    def _pack_array(self, value: Any, where: str) -> dict[str, Any]:
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            words = self._pack_array(jax.random.key_data(value), where)
            return {"$key": str(jax.random.key_impl(value)), "words": words}
        array = np.asarray(value)
        if array.dtype.kind not in _KINDS and not _is_extended(array.dtype):
            raise TypeError(f"{where} is an array of {array.dtype}; give an array of numbers")
        if isinstance(value, np.generic):
            return {"$scalar": str(value), "array": self._pack_array(array, where)}
        array = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
        name = self._free_name(where)
        native = array.dtype.name in _NATIVE
        self.arrays[name] = array if native else array.reshape(-1).view(np.uint8)
        made_by = "jax" if isinstance(value, jax.Array) else "numpy"
        shape = list(array.shape)
        return {"$array": name, "dtype": array.dtype.name, "shape": shape, "of": made_by}

    def _free_name(self, where: str) -> str:
        """Returns the place as a name, or a number where that is no plain name, or taken."""
        place = where.removeprefix(f"{_ROOT}/")
        numbered = (f"array {i}" for i in itertools.count(len(self.arrays)))
        names = itertools.chain([place], numbered) if _is_plain(place) else numbered
        return next(name for name in names if name not in self.arrays)


def _unpack(packed: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(packed, list):
        return [_unpack(part, arrays) for part in packed]
    if not isinstance(packed, dict):
        return packed
    match next(iter(packed), ""):
        case "$float":
            return float(packed["$float"])
        case "$tuple":
            return tuple(_unpack(packed["$tuple"], arrays))
        case "$dict":
            return {name: _unpack(part, arrays) for name, part in packed["$dict"]}
        case "$scalar":
            return _unpack(packed["array"], arrays)[()]
        case "$key":
            words = _unpack(packed["words"], arrays)
            return jax.random.wrap_key_data(words, impl=packed["$key"])
        case "$array":
            return _unpack_array(packed, arrays[packed["$array"]])
        case "$record":
            parts = {n: _unpack(part, arrays) for n, part in packed.items() if n != "$record"}
            return _find_record(packed["$record"])(**parts)
    return {name: _unpack(part, arrays) for name, part in packed.items()}


def _unpack_array(packed: Mapping[str, Any], held: np.ndarray) -> Any:
    dtype, shape = jnp.dtype(packed["dtype"]), tuple(packed["shape"])
    array = held if dtype.name in _NATIVE else held.view(dtype).reshape(shape)
    placed = jax.device_put(array) if packed["of"] == "jax" else array
    if placed.shape != shape or placed.dtype != dtype:
        raise ValueError(
            f"{packed['$array']} is {placed.dtype}{list(placed.shape)} here, "
            f"and was {dtype}{list(shape)}"
        )
    return placed


def _is_extended(dtype: np.dtype) -> bool:
    """Whether a dtype is one that JAX adds to NumPy's, as bfloat16."""
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isprintable()


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _fields(kind: Any) -> tuple[str, ...]:
    if issubclass(kind, tuple):
        names: tuple[str, ...] = kind._fields
        return names
    return tuple(field.name for field in dataclasses.fields(kind))


def _is_record(kind: Any) -> bool:
    if kind.__module__.partition(".")[0] != "unlearnkit":
        return False
    return hasattr(kind, "_fields") if issubclass(kind, tuple) else is_frozen(kind)


def _find_record(name: str) -> Any:
    """Returns the class of this name; looks nowhere but in this library."""
    module, _, qualified = name.partition(":")
    if module.partition(".")[0] != "unlearnkit":
        raise ValueError(f"{name} is no class of this library")
    found = functools.reduce(getattr, qualified.split("."), importlib.import_module(module))
    if not isinstance(found, type) or not _is_record(found) or _name(found) != name:
        raise ValueError(f"{name} is no NamedTuple or frozen dataclass")
    return found
