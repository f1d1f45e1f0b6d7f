"""What a stage of a study is called: a hash of all that its result depends on."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import re
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearnkit.base import Dataset, Model
from unlearnkit.studies.store.environment import Environment
from unlearnkit.studies.store.packing import is_frozen
from unlearnkit.training import Recipe
from unlearnkit.training.identity import digest_traced, identify_network

_KIND = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_CONTENT = re.compile(r"[0-9a-f]{64}")
_PLAIN = (type(None), bool, int, float, str)


@dataclasses.dataclass(frozen=True)
class StageKey:
    """The name of a stage's result.

    Attributes:
      kind: what the stage does, as `original` or `audit`: lower-case letters, digits, `-` and `_`.
      content: SHA-256 of settings and inputs.
      environment: in which the result is, or would be, computed.
    """

    kind: str
    content: str
    environment: Environment

    def __post_init__(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise ValueError(
                f"the kind of a stage must be at most 64 lower-case letters, digits, '-' and '_', "
                f"got {self.kind!r}"
            )
        if not _CONTENT.fullmatch(self.content):
            raise ValueError(f"content must be a SHA-256 in hexadecimal, got {self.content!r}")

    @property
    def name(self) -> str:
        """The name of the stage's folder."""
        return f"{self.content}-{self.environment.digest}"


def stage_key(
    kind: str,
    settings: Any,
    inputs: Any,
    environment: Environment | None = None,
    *,
    digests: ArrayDigests | None = None,
) -> StageKey:
    """Returns the key of a stage.

    Two stages have one key where kind, settings, inputs and environment are equal: arrays and JAX's
    keys bit for bit, floats exactly. 1, 1.0 and True differ; a list and a tuple of the same do not,
    nor an array of NumPy and of JAX, nor two orders of a dict. A dataclass is its class and all its
    fields, a function the name by which its module has it; of those that are not this library's the
    source text of their own modules counts too, but not what these import. A network is its name
    and options, or all that it computes.

    Args:
      kind: what the stage does.
      settings: what was asked for: numbers, text, None, lists, dicts, arrays, networks, functions
        of modules, NamedTuples and frozen dataclasses of these.
      inputs: likewise; what the stage is computed from. Give what decides the result alone, as the
        weights of an earlier stage, and not what it cost.
      environment: of the computation; by default the one of this process.
      digests: see `content_hash`.

    Raises:
      TypeError: a value that nothing sure can be said of, as a function made within another.
    """
    return StageKey(
        kind,
        content_hash({"kind": kind, "settings": settings, "inputs": inputs}, digests=digests),
        Environment.current() if environment is None else environment,
    )


def content_hash(value: Any, *, digests: ArrayDigests | None = None) -> str:
    """Returns a SHA-256 of settings or inputs; see `stage_key` of what counts.

    Args:
      value: settings or inputs.
      digests: those of arrays that were hashed before; None hashes all anew.
    """
    described = json.dumps(_describe(value, "value", digests or ArrayDigests()), sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


class ArrayDigests:
    """Digests of arrays of JAX, which never change: each is computed once while its array lives.

    A study's data are inputs of most of its stages. Arrays of NumPy may change, and are hashed
    each time.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[jax.Array], str]] = {}

    def of(self, array: np.ndarray | np.generic | jax.Array, content: np.ndarray) -> str:
        """Returns the digest of an array.

        Args:
          array: the array itself.
          content: its elements, on the host.
        """
        if not isinstance(array, jax.Array):
            return _digest(content)
        place = id(array)
        known = self._known.get(place)
        if known is not None and known[0]() is array:
            return known[1]
        digest = _digest(content)
        self._known[place] = weakref.ref(array, lambda _: self._known.pop(place, None)), digest
        return digest


def _digest(content: np.ndarray) -> str:
    return hashlib.sha256(content.reshape(-1).view(np.uint8).data).hexdigest()


def _describe(value: Any, where: str, digests: ArrayDigests) -> Any:
    """Returns a value as JSON; an object there always says in its only name what it stands for."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _describe_array(value, where, digests)
    if isinstance(value, np.dtype):
        return {"dtype": value.name}
    if isinstance(value, Model):
        return {"network": [_describe_network(value), _describe(value.layers, where, digests)]}
    if isinstance(value, StageKey):
        raise TypeError(f"{where} is the key of a stage; give what the stage made")
    if isinstance(value, Mapping):
        return {"mapping": _describe_entries(value, where, digests)}
    if type(value) in (tuple, list):
        return [_describe(part, f"{where}[{i}]", digests) for i, part in enumerate(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _describe_record(value, value._fields, where, digests)
    if is_frozen(type(value)):
        return _describe_record(value, [f.name for f in dataclasses.fields(value)], where, digests)
    if callable(value):
        return {"named": _describe_named(value, where)}
    raise TypeError(
        f"{where} is a {_qualified(type(value))}, which has no sure description; give numbers, "
        "text, arrays, networks, functions of a module, or NamedTuples and frozen dataclasses"
    )


def _describe_array(value: Any, where: str, digests: ArrayDigests) -> dict[str, Any]:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        words = _describe_array(jax.random.key_data(value), where, digests)["array"]
        return {"key": [str(jax.random.key_impl(value)), *words]}
    array = np.asarray(value, order="C")
    if array.dtype.hasobject or array.dtype.names:
        raise TypeError(f"{where} is an array of {array.dtype}; give an array of numbers")
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return {"array": [array.dtype.name, list(array.shape), digests.of(value, array)]}


def _describe_entries(mapping: Mapping[Any, Any], where: str, digests: ArrayDigests) -> list[Any]:
    for name in mapping:
        if type(name) not in (str, int):
            raise TypeError(f"{where} has the name {name!r}; names must be text or whole numbers")
    names = sorted(mapping, key=lambda name: (type(name).__name__, name))
    return [[name, _describe(mapping[name], f"{where}[{name!r}]", digests)] for name in names]


def _describe_record(value: Any, fields: Any, where: str, digests: ArrayDigests) -> dict[str, Any]:
    parts = {name: _describe(getattr(value, name), f"{where}.{name}", digests) for name in fields}
    return {"record": [_describe_named(type(value), where), parts]}


def _describe_network(model: Model) -> Any:
    """Returns a network's name and options, or what its three functions compute."""
    x = jnp.zeros((2, *model.input_shape), model.input_dtype)
    example = Dataset(x, jnp.zeros(2, jnp.int32))
    known = identify_network(model, Recipe(epochs=1, batch_size=2), example)
    if "name" in known:
        return known
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(model.init, key)
    begun = digest_traced(jax.make_jaxpr(model.init)(key))
    applied = digest_traced(jax.make_jaxpr(model.apply)(variables, example.x))
    return {**known, "init": begun, "apply": applied}


def _describe_named(thing: Callable[..., Any], where: str) -> list[str]:
    """Returns the name of a class or function, and the sources of modules that are not ours."""
    if _find(thing) is not thing:
        raise TypeError(
            f"{where} is {_qualified(thing)}, which its module does not have by this name: what it "
            "closes over cannot be seen; define it at the top of a module, with its settings as "
            "fields of a frozen dataclass"
        )
    classes = thing.__mro__[:-1] if isinstance(thing, type) else (thing,)
    modules = dict.fromkeys(part.__module__ for part in classes)
    foreign = [name for name in modules if name.partition(".")[0] not in ("unlearnkit", "builtins")]
    return [_qualified(thing), *(_source_digest(name, where) for name in foreign)]


def _find(thing: Callable[..., Any]) -> Any:
    module = sys.modules.get(str(getattr(thing, "__module__", None)))
    names = str(getattr(thing, "__qualname__", "?")).split(".")
    return functools.reduce(lambda part, name: getattr(part, name, None), names, module)


def _source_digest(module: str, where: str) -> str:
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):
        raise TypeError(
            f"{where} is of the module {module}, whose source cannot be read: it could change "
            "without being noticed; move it to a file"
        ) from None
    return hashlib.sha256(source.encode()).hexdigest()


def _qualified(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', '?')}"
