"""Makes a `Model` of a flax module or of two functions.

The callables are frozen values that compare by the module they hold, so that two models of equal
modules are equal and share one compilation.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

from unlearnkit.base import Model, Params, Path, State, Variables


def from_linen(module: nn.Module, *, input_shape: tuple[int, ...]) -> Model:
    """Returns the model of a `flax.linen` module.

    A module whose `__call__` has a `train` argument is given `train=True` in training mode and
    `train=False` otherwise. The collection `params` becomes `Variables.params`, all others become
    `Variables.state`. Dropout draws from the stream `dropout`.

    Args:
      module: maps x [n, *input_shape] to logits [n, c].
      input_shape: the shape of one example.

    Raises:
      ValueError: the module does not map to [n, c].
    """
    init = _LinenInit(module, input_shape)
    return _assemble(init, _LinenApply(module), _LinenApplyTrain(module), input_shape)


def from_nnx(build: Callable[[nnx.Rngs], nnx.Module], *, input_shape: tuple[int, ...]) -> Model:
    """Returns the model of a `flax.nnx` module.

    `nnx.Param` becomes `Variables.params`; every other variable but random-number state becomes
    `Variables.state`. Training and evaluation use `module.train()` and `module.eval()`.

    Args:
      build: makes the module from `nnx.Rngs`, as `lambda rngs: Net(rngs=rngs)`. Pass the same
        function each time to share compilations.
      input_shape: the shape of one example.

    Raises:
      ValueError: the module does not map to [n, c].
    """
    return _assemble(_NnxInit(build), _NnxApply(build), _NnxApplyTrain(build), input_shape)


def from_functions(
    init: Callable[[Key[Array, ""]], Params],
    apply: Callable[[Params, Array], Array],
    *,
    input_shape: tuple[int, ...],
) -> Model:
    """Returns the model of two functions of a user's own, without state.

    Args:
      init: key -> params. Nested dicts name the layers, in the order in which they were built; any
        other pytree is one layer.
      apply: (params, x [n, *input_shape]) -> logits [n, c].
      input_shape: the shape of one example.

    Raises:
      ValueError: `apply` does not map to [n, c].
    """
    return _assemble(
        _FunctionInit(init), _FunctionApply(apply), _FunctionApplyTrain(apply), input_shape
    )


def freeze_state(model: Model) -> Model:
    """Returns `model` with training mode replaced by evaluation mode.

    BatchNorm then uses and keeps its running statistics, and dropout is off.
    """
    return model._replace(apply_train=_Frozen(model.apply))


@runtime_checkable
class _Init(Protocol):
    def __call__(self, key: Key[Array, ""]) -> Variables: ...

    def ordered(self, key: Key[Array, ""], order: list[Path]) -> Variables:
        """Initialises, and appends the paths of all subtrees in the order of their definition."""


def _assemble(
    init: _Init, apply: Callable[..., Any], apply_train: Callable[..., Any], shape: tuple[int, ...]
) -> Model:
    order: list[Path] = []
    shapes = jax.eval_shape(lambda key: init.ordered(key, order), jax.random.key(0))
    layers = _group_layers(shapes.params, order)
    return Model(init, apply, apply_train, layers, shape, _n_classes(apply, shapes, shape))


@dataclasses.dataclass(frozen=True)
class _Frozen:
    apply: Callable[[Variables, Array], Array]

    def __call__(self, variables: Variables, x: Array, key: Any) -> tuple[Array, State]:
        return self.apply(variables, x), variables.state


@dataclasses.dataclass(frozen=True)
class _LinenInit:
    module: Any
    input_shape: tuple[int, ...]

    def __call__(self, key: Key[Array, ""]) -> Variables:
        return self.ordered(key, [])

    def ordered(self, key: Key[Array, ""], order: list[Path]) -> Variables:
        x = jnp.zeros((1, *self.input_shape))
        variables = self.module.init(key, x, **_mode(self.module, train=False))
        order.extend(_subtrees(variables.get("params", {})))
        return _split_collections(variables)


@dataclasses.dataclass(frozen=True)
class _LinenApply:
    module: Any

    def __call__(self, variables: Variables, x: Array) -> Array:
        return self.module.apply(_collections(variables), x, **_mode(self.module, train=False))


@dataclasses.dataclass(frozen=True)
class _LinenApplyTrain:
    module: Any

    def __call__(self, variables: Variables, x: Array, key: Key[Array, ""]) -> tuple[Array, State]:
        mode = _mode(self.module, train=True)
        collections, rngs = _collections(variables), {"dropout": key}
        if not variables.state:
            return self.module.apply(collections, x, rngs=rngs, **mode), variables.state
        return self.module.apply(collections, x, rngs=rngs, mutable=list(variables.state), **mode)


def _mode(module: Any, *, train: bool) -> dict[str, bool]:
    takes_train = "train" in inspect.signature(type(module).__call__).parameters
    return {"train": train} if takes_train else {}


def _collections(variables: Variables) -> dict[str, Any]:
    return {"params": variables.params, **variables.state}


def _split_collections(variables: Mapping[str, Any]) -> Variables:
    state = {name: value for name, value in variables.items() if name != "params"}
    return Variables(variables.get("params", {}), state)


_NnxBuild = Callable[[nnx.Rngs], nnx.Module]


@dataclasses.dataclass(frozen=True)
class _NnxInit:
    build: _NnxBuild

    def __call__(self, key: Key[Array, ""]) -> Variables:
        return self.ordered(key, [])

    def ordered(self, key: Key[Array, ""], order: list[Path]) -> Variables:
        module = self.build(nnx.Rngs(key))
        _, params, _, state = _split(module)
        pure = _pure_dict(params)
        present = set(_subtrees(pure))
        order.extend(path for path in _definition_order(module) if path in present)
        return Variables(pure, _pure_dict(state))


@dataclasses.dataclass(frozen=True)
class _NnxApply:
    build: _NnxBuild

    def __call__(self, variables: Variables, x: Array) -> Array:
        module = _nnx_module(self.build, variables, jax.random.key(0))
        module.eval()
        return module(x)


@dataclasses.dataclass(frozen=True)
class _NnxApplyTrain:
    build: _NnxBuild

    def __call__(self, variables: Variables, x: Array, key: Key[Array, ""]) -> tuple[Array, State]:
        module = _nnx_module(self.build, variables, key)
        module.train()
        logits = module(x)
        return logits, _pure_dict(_split(module)[3])


def _nnx_module(build: _NnxBuild, variables: Variables, key: Key[Array, ""]) -> Any:
    """Rebuilds the module inside the trace; the arrays of the build are dead code to XLA."""
    graph, params, rngs, state = _split(build(nnx.Rngs(key)))
    nnx.replace_by_pure_dict(params, variables.params)
    nnx.replace_by_pure_dict(state, variables.state)
    return nnx.merge(graph, params, rngs, state)


def _split(module: nnx.Module) -> tuple[Any, Any, Any, Any]:
    """Returns the graph, the parameters, the random-number state and all other state."""
    return nnx.split(module, nnx.Param, nnx.RngState, ...)  # type: ignore[return-value]


def _pure_dict(state: Any) -> dict[str, Any]:
    """Returns nested dicts with string keys; list positions, which nnx keys by int, included."""
    return _string_keys(nnx.to_pure_dict(state))


def _string_keys(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {str(name): _string_keys(value) for name, value in tree.items()}


def _definition_order(module: Any) -> list[Path]:
    """Lists the paths of all submodules in the order in which their attributes were set."""
    paths: list[Path] = []

    def visit(node: Any, path: Path) -> None:
        paths.append(path)
        if isinstance(node, nnx.Module):
            children: Iterable[tuple[Any, Any]] = vars(node).items()
        elif isinstance(node, (list, tuple)):
            children = enumerate(node)
        elif isinstance(node, dict):
            children = node.items()
        else:
            return
        for name, child in children:
            if isinstance(child, (nnx.Module, list, tuple, dict)):
                visit(child, (*path, str(name)))

    visit(module, ())
    return paths


@dataclasses.dataclass(frozen=True)
class _FunctionInit:
    init: Callable[[Key[Array, ""]], Params]

    def __call__(self, key: Key[Array, ""]) -> Variables:
        return Variables(self.init(key))

    def ordered(self, key: Key[Array, ""], order: list[Path]) -> Variables:
        params = self.init(key)
        order.extend(_subtrees(params))
        return Variables(params)


@dataclasses.dataclass(frozen=True)
class _FunctionApply:
    apply: Callable[[Params, Array], Array]

    def __call__(self, variables: Variables, x: Array) -> Array:
        return self.apply(variables.params, x)


@dataclasses.dataclass(frozen=True)
class _FunctionApplyTrain:
    apply: Callable[[Params, Array], Array]

    def __call__(self, variables: Variables, x: Array, key: Key[Array, ""]) -> tuple[Array, State]:
        return self.apply(variables.params, x), variables.state


def _subtrees(params: Params, path: Path = ()) -> list[Path]:
    """Lists the paths of the dicts in `params` that hold arrays directly, in insertion order."""
    if not isinstance(params, Mapping):
        return [()]
    nested = [name for name, value in params.items() if isinstance(value, Mapping)]
    own = [path] if len(nested) < len(params) else []
    return own + [deep for name in nested for deep in _subtrees(params[name], (*path, name))]


def _group_layers(params: Params, order: list[Path]) -> tuple[tuple[Path, ...], ...]:
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
    own = subtree.values() if isinstance(subtree, Mapping) else jax.tree.leaves(subtree)
    return any(getattr(leaf, "ndim", 0) >= 2 for leaf in own)


def _n_classes(
    apply: Callable[[Variables, Array], Array], shapes: Variables, input_shape: tuple[int, ...]
) -> int:
    x = jax.ShapeDtypeStruct((2, *input_shape), jnp.float32)
    logits = jax.eval_shape(apply, shapes, x)
    if not hasattr(logits, "shape") or len(logits.shape) != 2 or logits.shape[0] != 2:
        raise ValueError(
            f"a model must map x [n, {', '.join(map(str, input_shape))}] to logits [n, c], "
            f"but 2 examples gave {getattr(logits, 'shape', type(logits).__name__)}"
        )
    return int(logits.shape[1])
