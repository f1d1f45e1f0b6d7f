"""What all adapters share: how a model is made of an initialisation and two calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from unlearnkit.base import Model, Params, Path, Variables

_NORMS = ("scale", "offset")
"""Leaves of norms, which are [1, c] in haiku."""


@runtime_checkable
class Init(Protocol):
    """Makes variables of a key."""

    def __call__(self, key: Key[Array, ""]) -> Variables: ...

    def ordered(self, key: Key[Array, ""], order: list[Path]) -> Variables:
        """Initialises, and appends the paths of all subtrees in the order of their definition."""


def example_of(shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
    """Returns the shape and type of one example, after checking the type."""
    found = jnp.dtype(dtype)
    if not (jnp.issubdtype(found, jnp.floating) or jnp.issubdtype(found, jnp.integer)):
        raise ValueError(f"input_dtype must be floating point or integer, got {dtype!r}")
    return jax.ShapeDtypeStruct(shape, found)


def assemble(
    init: Init,
    apply: Callable[..., Any],
    apply_train: Callable[..., Any],
    example: jax.ShapeDtypeStruct,
) -> Model:
    """Returns the model of an initialisation and two calls.

    Args:
      init: key -> variables.
      apply: (variables, x) -> logits.
      apply_train: (variables, x, key) -> (logits, state).
      example: the shape and type of one.

    Raises:
      ValueError: `apply` does not map to [n, c].
    """
    order: list[Path] = []
    shapes = jax.eval_shape(lambda key: init.ordered(key, order), jax.random.key(0))
    return Model(
        init,
        apply,
        apply_train,
        group_layers(shapes.params, order),
        example.shape,
        _n_classes(apply, shapes, example),
        input_dtype=example.dtype.name,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """Wraps a user's object so that it can be part of a static argument of `jax.jit`.

    It compares by value where it can be hashed. A module with a list or an array among its
    attributes cannot, and compares by identity: only the very same object shares a compilation.
    """

    value: Any

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Held):
            return NotImplemented
        if self.value is other.value:
            return True
        return _hashes(self.value) and _hashes(other.value) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(self.value) if _hashes(self.value) else id(self.value)


def _hashes(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def subtrees(params: Params, path: Path = ()) -> list[Path]:
    """Lists the paths of the dicts in `params` that hold arrays directly, in insertion order."""
    if not isinstance(params, Mapping):
        return [()]
    nested = [name for name, value in params.items() if isinstance(value, Mapping)]
    own = [path] if len(nested) < len(params) else []
    return own + [deep for name in nested for deep in subtrees(params[name], (*path, name))]


def group_layers(params: Params, order: list[Path]) -> tuple[tuple[Path, ...], ...]:
    """Groups subtrees into layers: one that holds a weight matrix or kernel begins a new layer."""
    groups: list[list[Path]] = []
    for path in order:
        if not groups or _has_kernel(params, path):
            groups.append([])
        groups[-1].append(path)
    return tuple(tuple(group) for group in groups)


def _has_kernel(params: Params, path: Path) -> bool:
    subtree = params
    for name in path:
        subtree = subtree[name]
    if not isinstance(subtree, Mapping):
        return any(jnp.ndim(leaf) >= 2 for leaf in jax.tree.leaves(subtree))
    kernels = (leaf for leaf_name, leaf in subtree.items() if leaf_name not in _NORMS)
    return any(getattr(leaf, "ndim", 0) >= 2 for leaf in kernels)


def _n_classes(
    apply: Callable[[Variables, Array], Array], shapes: Variables, example: jax.ShapeDtypeStruct
) -> int:
    x = jax.ShapeDtypeStruct((2, *example.shape), example.dtype)
    logits = jax.eval_shape(apply, shapes, x)
    if not hasattr(logits, "shape") or len(logits.shape) != 2 or logits.shape[0] != 2:
        raise ValueError(
            f"a model must map x [n, {', '.join(map(str, example.shape))}] to logits [n, c], "
            f"but 2 examples gave {getattr(logits, 'shape', type(logits).__name__)}"
        )
    return int(logits.shape[1])
