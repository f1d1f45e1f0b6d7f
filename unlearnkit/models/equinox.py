"""Makes a model and its weights of an Equinox module."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Key

from unlearnkit.base import Model, State, Variables
from unlearnkit.models.assembling import Held, assemble, example_of
from unlearnkit.models.fresh import given
from unlearnkit.models.leaves import role_of


@dataclasses.dataclass(frozen=True)
class _Tree:
    """Turns variables into a module and its state, and back.

    Attributes:
      structure: of (module, state).
      paths: where the leaves stand, as they are named in variables.
      static: the leaves that are neither trained nor carried; None in the place of others.
      trained: which leaves are weights.
    """

    structure: Held
    paths: tuple[tuple[str, ...], ...]
    static: Held
    trained: tuple[bool, ...]

    def take_apart(self, pair: Any) -> Variables:
        params: dict[str, Any] = {}
        state: dict[str, Any] = {}
        leaves = jax.tree.leaves(pair)
        rows = zip(leaves, self.paths, self.static.value, self.trained, strict=True)
        for leaf, path, static, trained in rows:
            if static is not None:
                continue
            node = params if trained else state
            for part in path[:-1]:
                node = node.setdefault(part, {})
            node[path[-1]] = leaf
        return Variables(params, state)

    def put_together(self, variables: Variables) -> Any:
        leaves = []
        for path, static, trained in zip(self.paths, self.static.value, self.trained, strict=True):
            node = variables.params if trained else variables.state
            for part in () if static is not None else path:
                node = node[part]
            leaves.append(node if static is None else static.value)
        return jax.tree.unflatten(self.structure.value, leaves)


def adopt_equinox(
    module: Any,
    state: Any,
    *,
    input_shape: tuple[int, ...],
    fresh: Callable[..., Any] | None,
    channels_first: bool,
    input_dtype: str,
) -> tuple[Model, Variables]:
    """Returns the model of an Equinox module, which takes one example, and its weights.

    Floating-point arrays are weights, all other arrays and the module's `State` are state. In
    evaluation `equinox.nn.inference_mode` is on, in training it is off, and each example has a key
    of its own where the module takes one.

    Args:
      module: maps x [*input_shape] to logits [c].
      state: of stateful layers, as BatchNorm; None where there are none.
      input_shape: the shape of one example of the data.
      fresh: key -> a new module, or (module, state); None where new weights cannot be made.
      channels_first: whether the module takes [c, h, w] where the data are [h, w, c].
      input_dtype: see `from_linen`.

    Raises:
      ValueError: the module does not map to [c].
    """
    import equinox

    example = example_of(input_shape, input_dtype)
    modes = {
        train: (equinox.nn.inference_mode(module, value=not train), state)
        for train in (True, False)
    }
    trees = {train: _tree(pair) for train, pair in modes.items()}
    variables = trees[False].take_apart(modes[False])
    axes = {
        node.axis_name
        for node in jax.tree.leaves(module, is_leaf=lambda node: hasattr(node, "axis_name"))
        if isinstance(getattr(node, "axis_name", None), str)
    }
    taken = inspect.signature(type(module).__call__).parameters
    call = _Call(
        trees[False],
        takes_key="key" in taken or any(p.kind is p.VAR_KEYWORD for p in taken.values()),
        stateful=state is not None,
        axis_name=next(iter(axes), None),
        channels_first=channels_first,
    )
    again = None if fresh is None else _Fresh(Held(fresh), trees[False])
    model = assemble(
        given(variables, again),
        _Apply(call),
        dataclasses.replace(call, tree=trees[True], training=True),
        example,
    )
    return model, variables


def _tree(pair: Any) -> _Tree:
    found, structure = jax.tree_util.tree_flatten_with_path(pair)
    paths = tuple(
        tuple(jax.tree_util.keystr((key,), simple=True, separator="/") for key in path)
        for path, _ in found
    )
    roles = [role_of(leaf) for _, leaf in found]
    static = tuple(
        Held(leaf) if role == "static" else None
        for (_, leaf), role in zip(found, roles, strict=True)
    )
    trained = tuple(
        role == "trained" and path[0] == "0" for role, path in zip(roles, paths, strict=True)
    )
    names = tuple(
        path[1:] if ours else ("state" if path[0] == "1" else "module", *path[1:])
        for path, ours in zip(paths, trained, strict=True)
    )
    return _Tree(Held(structure), names, Held(static), trained)


@dataclasses.dataclass(frozen=True)
class _Fresh:
    make: Held
    tree: _Tree

    def __call__(self, key: Key[Array, ""]) -> Variables:
        import equinox

        made = self.make.value(key)
        module, state = made if isinstance(made, tuple) else (made, None)
        return self.tree.take_apart((equinox.nn.inference_mode(module), state))


@dataclasses.dataclass(frozen=True)
class _Call:
    tree: _Tree
    takes_key: bool
    stateful: bool
    axis_name: str | None
    channels_first: bool
    training: bool = False

    def __call__(
        self, variables: Variables, x: Array, key: Key[Array, ""] | None
    ) -> tuple[Array, State]:
        module, state = self.tree.put_together(variables)
        if self.channels_first:
            x = x.transpose(0, 3, 1, 2)
        keyed = self.training and self.takes_key and key is not None
        keys = jax.random.split(key, x.shape[0]) if keyed and key is not None else None

        def one(x: Array, key: Array | None) -> Any:
            options = {} if key is None else {"key": key}
            return module(x, state, **options) if self.stateful else module(x, **options)

        axes = (0, None if keys is None else 0)
        out = (0, None) if self.stateful else 0
        found = jax.vmap(one, in_axes=axes, out_axes=out, axis_name=self.axis_name)(x, keys)
        if not self.stateful:
            return found, variables.state
        logits, moved = found
        return logits, self.tree.take_apart((module, moved)).state


@dataclasses.dataclass(frozen=True)
class _Apply:
    call: _Call

    def __call__(self, variables: Variables, x: Array) -> Array:
        return self.call(variables, x, None)[0]
