"""Makes a `Model` of a transformed function as haiku has it, a pair of `init` and `apply`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from unlearnkit.base import Model, Path, State, Variables
from unlearnkit.models.assembling import Held, assemble, example_of, subtrees
from unlearnkit.models.modes import Calls, Mode, arguments, choose_mode, trace_call


@runtime_checkable
class Transformed(Protocol):
    """A pair of functions, as `haiku.transform` and `haiku.transform_with_state` return it.

    Attributes:
      init: (key, x) -> params, or (params, state).
      apply: (params, [state,] [key,] x) -> output, or (output, state).
    """

    @property
    def init(self) -> Callable[..., Any]: ...

    @property
    def apply(self) -> Callable[..., Any]: ...


def from_haiku(
    transformed: Transformed,
    *,
    input_shape: tuple[int, ...],
    mode: str | Mapping[str, bool] | None = None,
    input_dtype: str = "float32",
) -> Model:
    """Returns the model of a function that haiku transformed; haiku itself is not needed for it.

    Args:
      transformed: of `haiku.transform` or `haiku.transform_with_state`, with `rng` or without
        (`haiku.without_apply_rng`).
      input_shape: the shape of one example.
      mode: see `from_linen`; `is_training` is found out.
      input_dtype: see `from_linen`.

    Raises:
      ValueError: see `from_linen`.

    Example:
      net = haiku.without_apply_rng(haiku.transform(lambda x: haiku.Linear(10)(x)))
      model = models.from_haiku(net, input_shape=(784,))
    """
    held, example = (
        Held((transformed.init, transformed.apply)),
        example_of(input_shape, input_dtype),
    )
    takes_rng = "rng" in inspect.signature(transformed.apply).parameters

    def calls(mode: Mode) -> Calls:
        shapes = jax.eval_shape(_Init(held, example, mode), jax.random.key(0))
        stateful = bool(jax.tree.leaves(shapes.state))
        train = _ApplyTrain(held, mode, takes_rng, _has_state(held, example, mode))
        evaluate = dataclasses.replace(train, training=False)
        trace_call(train, shapes, example)
        return Calls(shapes, train, evaluate, False, stateful)

    # Only its signature is looked at: that of a function that may take any mode.
    def called(self: object, x: Array, **kwargs: bool) -> Array:
        raise NotImplementedError

    found = choose_mode(called, mode, calls, example)
    with_state = _has_state(held, example, found)
    train = _ApplyTrain(held, found, takes_rng, with_state)
    return assemble(_Init(held, example, found), _Apply(train), train, example)


def _has_state(held: Held, example: jax.ShapeDtypeStruct, mode: Mode) -> bool:
    made = jax.eval_shape(
        lambda key: held.value[0](key, _zeros(example), **arguments(mode, train=True)),
        jax.random.key(0),
    )
    return isinstance(made, tuple)


def _zeros(example: jax.ShapeDtypeStruct) -> Array:
    return jnp.zeros((1, *example.shape), example.dtype)


@dataclasses.dataclass(frozen=True)
class _Init:
    held: Held
    example: jax.ShapeDtypeStruct
    mode: Mode

    def __call__(self, key: Key[Array, ""]) -> Variables:
        return self.ordered(key, [])

    def ordered(self, key: Key[Array, ""], order: list[Path]) -> Variables:
        # In training mode: only then does haiku make the running statistics.
        made = self.held.value[0](key, _zeros(self.example), **arguments(self.mode, train=True))
        variables = Variables(*made) if isinstance(made, tuple) else Variables(made)
        order.extend(subtrees(variables.params))
        return variables


@dataclasses.dataclass(frozen=True)
class _ApplyTrain:
    held: Held
    mode: Mode
    takes_rng: bool
    with_state: bool
    training: bool = True

    def __call__(
        self, variables: Variables, x: Array, key: Key[Array, ""] | None
    ) -> tuple[Array, State]:
        given: list[Any] = [variables.params, *([variables.state] if self.with_state else [])]
        given += [key] if self.takes_rng else []
        found = self.held.value[1](*given, x, **arguments(self.mode, train=self.training))
        return found if self.with_state else (found, variables.state)


@dataclasses.dataclass(frozen=True)
class _Apply:
    train: _ApplyTrain

    def __call__(self, variables: Variables, x: Array) -> Array:
        return dataclasses.replace(self.train, training=False)(variables, x, None)[0]
