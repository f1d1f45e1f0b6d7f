"""Makes a `Model` from a flax module or from two functions.

The callables are frozen values that compare by the module they hold, so that two models of equal
modules are equal and share one compilation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.errors import InvalidRngError, ModifyScopeVariableError
from jaxtyping import Array, Key

from unlearnkit.base import Model, Params, Path, State, Variables
from unlearnkit.models.assembling import Held, assemble, example_of, group_layers, subtrees
from unlearnkit.models.leaves import Leaves, split_leaves
from unlearnkit.models.modes import Calls, Mode, arguments, choose_mode, trace_call
from unlearnkit.models.swapping import Convolution, meets_slow


def from_linen(
    module: nn.Module,
    *,
    input_shape: tuple[int, ...],
    mode: str | Mapping[str, bool] | None = None,
    rngs: Sequence[str] = (),
    input_dtype: str = "float32",
    convolution: str | None = None,
) -> Model:
    """Returns the model of a `flax.linen` module.

    Arguments of the module's `__call__` that are called `train`, `training`, `is_training`,
    `deterministic` or `use_running_average`, or that it takes by these names from its `**kwargs`,
    say whether it trains. The collection `params` becomes `Variables.params`, all others become
    `Variables.state`. In training, every random-number stream that the module uses gets its own
    key.

    Args:
      module: maps x [n, *input_shape] to logits [n, c].
      input_shape: the shape of one example.
      mode: the name of the argument that says whether the module trains, if it is none of these; or
        the arguments of the training call, as `{"inference": False}`, which evaluation negates, or
        `{}` for a module that computes the same in training. Arguments given in this way are not
        checked.
      rngs: random-number streams that the module uses only if `has_rng` finds them.
      input_dtype: the name of the inputs' dtype; `int32` for a network of token ids.
      convolution: how its `Conv` layers are computed: `xla`; `patches` or `bilinear`, which a CPU
        does faster and with the same numbers up to rounding, where they convolve images without
        dilation or groups. None for `xla`, and on a CPU a warning that there is a faster one.

    Raises:
      ValueError: the module does not map to [n, c]; inputs that are neither floating point nor
        integer; dropout or batch statistics that the training call does not use; random numbers
        drawn in evaluation.

    Example:
      model = models.from_linen(flax.linen.Dense(10), input_shape=(784,))
    """
    held, example = Held(module), example_of(input_shape, input_dtype)
    by = Convolution(convolution)
    met: set[type] = set()

    def calls(mode: Mode) -> Calls:
        seen: set[type] = set()
        with nn.intercept_methods(partial(_note, seen)), by.in_linen(met):
            shapes = jax.eval_shape(_LinenInit(held, example, mode, by), jax.random.key(0))
            train = _LinenApplyTrain(held, mode, tuple(rngs), by)
            traced = trace_call(train, shapes, example)
        normalises = nn.BatchNorm in seen or "batch_stats" in shapes.state
        return Calls(shapes, train, None, nn.Dropout in seen, normalises, traced)

    try:
        found = choose_mode(type(module).__call__, mode, calls, example)
        model = assemble(
            _LinenInit(held, example, found, by),
            _LinenApply(held, found, by),
            _LinenApplyTrain(held, found, tuple(rngs), by),
            example,
        )
    except (InvalidRngError, ModifyScopeVariableError) as error:
        raise ValueError(
            "the module draws random numbers, or moves its statistics, in its evaluation call, "
            "which must be a function of weights and inputs alone; name the argument that says "
            f"whether it trains as mode='name' ({str(error).splitlines()[0]})"
        ) from error
    by.tell(Convolution in met)
    return model


def from_nnx(
    build: Callable[[nnx.Rngs], nnx.Module],
    *,
    input_shape: tuple[int, ...],
    mode: str | Mapping[str, bool] | None = None,
    input_dtype: str = "float32",
    convolution: str | None = None,
) -> Model:
    """Returns the model of a `flax.nnx` module.

    `nnx.Param` becomes `Variables.params`; every other variable but random-number state becomes
    `Variables.state`. Training and evaluation use `module.train()` and `module.eval()`, and the
    arguments of `__call__` that `from_linen` recognises too.

    Args:
      build: makes the module from `nnx.Rngs`, as `lambda rngs: Net(rngs=rngs)`. Pass the same
        function each time to share compilations.
      input_shape: the shape of one example.
      mode: see `from_linen`.
      input_dtype: see `from_linen`.
      convolution: see `from_linen`.

    Raises:
      ValueError: see `from_linen`.

    Example:
      model = models.from_nnx(lambda rngs: flax.nnx.Linear(784, 10, rngs=rngs), input_shape=(784,))
    """
    if isinstance(build, nnx.Module):
        raise ValueError(
            f"from_nnx takes the function that makes a module, got a {type(build).__name__} that "
            "is made; models.adopt takes it, with its weights"
        )
    held, example = Held(build), example_of(input_shape, input_dtype)
    by = Convolution(convolution)
    parts: list[Any] = []

    def built(key: Key[Array, ""]) -> Variables:
        module = build(nnx.Rngs(key))
        parts[:] = [module, *(part for _, part in nnx.iter_graph(module))]
        return _NnxInit(held)(key)

    shapes = jax.eval_shape(built, jax.random.key(0))
    drops = any(isinstance(part, nnx.Dropout) and part.rate > 0 for part in parts)
    normalises = any(isinstance(part, nnx.BatchStat) for part in parts)

    def calls(mode: Mode) -> Calls:
        train, evaluate = (partial(_call_nnx, held, mode, by, train) for train in (True, False))
        return Calls(shapes, train, evaluate, drops, normalises)

    found = choose_mode(type(parts[0]).__call__, mode, calls, example)
    by.tell(meets_slow(parts))
    return assemble(
        _NnxInit(held), _NnxApply(held, found, by), _NnxApplyTrain(held, found, by), example
    )


def nnx_variables(module: nnx.Module) -> Variables:
    """Returns the weights and the state of a `flax.nnx` module, as `from_nnx` names them."""
    _, params, _, state = _split(module)
    return Variables(_pure_dict(params), _pure_dict(state))


def nnx_layers(module: nnx.Module) -> tuple[tuple[Path, ...], ...]:
    """Returns the groups of parameters of a `flax.nnx` module, in the order of its definition."""
    params = nnx_variables(module).params
    return group_layers(params, _ordered_subtrees(module, params))


def from_functions(
    init: Callable[[Key[Array, ""]], Params],
    apply: Callable[[Params, Array], Array],
    *,
    input_shape: tuple[int, ...],
    input_dtype: str = "float32",
) -> Model:
    """Makes a model without state from two functions.

    Args:
      init: key -> params. Nested dicts name the layers, in the order in which they were built; any
        other pytree is one layer. Leaves that are no numbers to be trained are allowed: arrays of
        integers, booleans or keys become `Variables.state`, and all else (texts, functions, Python
        integers) stays what it is, the same in each call.
      apply: (params, x [n, *input_shape]) -> logits [n, c].
      input_shape: the shape of one example.
      input_dtype: see `from_linen`.

    Raises:
      ValueError: `apply` does not map to [n, c].

    Example:
      def init(key):
          return {"w": jax.random.normal(key, (784, 10)) / 28}
      model = models.from_functions(init, lambda params, x: x @ params["w"], input_shape=(784,))
    """
    leaves = split_leaves(init)
    held, example = Held(apply), example_of(input_shape, input_dtype)
    return assemble(
        _FunctionInit(Held(init), leaves),
        _FunctionApply(held, leaves),
        _FunctionApplyTrain(held, leaves),
        example,
    )


def freeze_state(model: Model) -> Model:
    """Returns `model` with training mode replaced by evaluation mode.

    BatchNorm then uses and keeps its running statistics, and dropout is off.
    """
    return model._replace(apply_train=_Frozen(model.apply))


@dataclasses.dataclass(frozen=True)
class _Frozen:
    apply: Callable[[Variables, Array], Array]

    def __call__(self, variables: Variables, x: Array, key: Any) -> tuple[Array, State]:
        return self.apply(variables, x), variables.state


@dataclasses.dataclass(frozen=True)
class _LinenInit:
    held: Held
    example: jax.ShapeDtypeStruct
    mode: Mode
    convolution: Convolution

    def __call__(self, key: Key[Array, ""]) -> Variables:
        return self.ordered(key, [])

    def ordered(self, key: Key[Array, ""], order: list[Path]) -> Variables:
        x = jnp.zeros((1, *self.example.shape), self.example.dtype)
        with self.convolution.in_linen():
            variables = self.held.value.init(key, x, **arguments(self.mode, train=False))
        order.extend(subtrees(variables.get("params", {})))
        return _split_collections(variables)


@dataclasses.dataclass(frozen=True)
class _LinenApply:
    held: Held
    mode: Mode
    convolution: Convolution

    def __call__(self, variables: Variables, x: Array) -> Array:
        evaluation = arguments(self.mode, train=False)
        with self.convolution.in_linen():
            found: Array = self.held.value.apply(_collections(variables), x, **evaluation)
        return found


@dataclasses.dataclass(frozen=True)
class _LinenApplyTrain:
    held: Held
    mode: Mode
    rngs: tuple[str, ...]
    convolution: Convolution

    def __call__(self, variables: Variables, x: Array, key: Key[Array, ""]) -> tuple[Array, State]:
        training = arguments(self.mode, train=True)
        collections, rngs = _collections(variables), _streams(key, self.rngs)
        module = self.held.value
        with self.convolution.in_linen():
            if not variables.state:
                return module.apply(collections, x, rngs=rngs, **training), variables.state
            mutable = list(variables.state)
            found: tuple[Array, State] = module.apply(
                collections, x, rngs=rngs, mutable=mutable, **training
            )
        return found


def _streams(key: Key[Array, ""], named: tuple[str, ...]) -> dict[str, Key[Array, ""]]:
    """Returns the keys of a training call; flax serves a stream without one from `params`."""
    others = ("params", *(name for name in named if name != "dropout"))
    return {
        "dropout": key,
        **{name: jax.random.fold_in(key, index) for index, name in enumerate(others)},
    }


def _note(seen: set[type], call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Runs a method of a module, and notes which layers with a training mode are there."""
    module = context.module
    if isinstance(module, nn.BatchNorm) or (isinstance(module, nn.Dropout) and module.rate > 0):
        seen.add(nn.BatchNorm if isinstance(module, nn.BatchNorm) else nn.Dropout)
    return call(*args, **kwargs)


def _collections(variables: Variables) -> dict[str, Any]:
    return {"params": variables.params, **variables.state}


def _split_collections(variables: Mapping[str, Any]) -> Variables:
    state = {name: value for name, value in variables.items() if name != "params"}
    return Variables(variables.get("params", {}), state)


@dataclasses.dataclass(frozen=True)
class _NnxInit:
    held: Held

    def __call__(self, key: Key[Array, ""]) -> Variables:
        return self.ordered(key, [])

    def ordered(self, key: Key[Array, ""], order: list[Path]) -> Variables:
        module = self.held.value(nnx.Rngs(key))
        _, params, _, state = _split(module)
        pure = _pure_dict(params)
        order.extend(_ordered_subtrees(module, pure))
        return Variables(pure, _pure_dict(state))


@dataclasses.dataclass(frozen=True)
class _NnxApply:
    held: Held
    mode: Mode
    convolution: Convolution

    def __call__(self, variables: Variables, x: Array) -> Array:
        key = jax.random.key(0)
        return _call_nnx(self.held, self.mode, self.convolution, False, variables, x, key)[0]


@dataclasses.dataclass(frozen=True)
class _NnxApplyTrain:
    held: Held
    mode: Mode
    convolution: Convolution

    def __call__(self, variables: Variables, x: Array, key: Key[Array, ""]) -> tuple[Array, State]:
        return _call_nnx(self.held, self.mode, self.convolution, True, variables, x, key)


def _call_nnx(
    held: Held,
    mode: Mode,
    convolution: Convolution,
    train: bool,
    variables: Variables,
    x: Array,
    key: Key[Array, ""],
) -> tuple[Array, State]:
    module = _nnx_module(held.value, variables, key)
    convolution.put_into(module)
    if train:
        module.train()
    else:
        module.eval()
    logits = module(x, **arguments(mode, train=train))
    return logits, _pure_dict(_split(module)[3])


def _nnx_module(build: Callable[..., Any], variables: Variables, key: Key[Array, ""]) -> Any:
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
    return dict(_string_keys(nnx.to_pure_dict(state)))


def _string_keys(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {str(name): _string_keys(value) for name, value in tree.items()}


def _ordered_subtrees(module: Any, params: Params) -> list[Path]:
    present = set(subtrees(params))
    return [path for path in _definition_order(module) if path in present]


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
    held: Held
    leaves: Leaves

    def __call__(self, key: Key[Array, ""]) -> Variables:
        return self.leaves.split(self.held.value(key))

    def ordered(self, key: Key[Array, ""], order: list[Path]) -> Variables:
        variables = self(key)
        order.extend(subtrees(variables.params))
        return variables


@dataclasses.dataclass(frozen=True)
class _FunctionApply:
    held: Held
    leaves: Leaves

    def __call__(self, variables: Variables, x: Array) -> Array:
        found: Array = self.held.value(self.leaves.join(variables), x)
        return found


@dataclasses.dataclass(frozen=True)
class _FunctionApplyTrain:
    held: Held
    leaves: Leaves

    def __call__(self, variables: Variables, x: Array, key: Key[Array, ""]) -> tuple[Array, State]:
        return self.held.value(self.leaves.join(variables), x), variables.state
