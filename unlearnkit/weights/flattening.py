"""Which linear layers of a network take a feature map as a row.

PyTorch flattens [channels, height, width], flax [height, width, channels]: the rows of such a
layer's kernel are in another order, although the shape is the same. Where a network flattens is
read from its traced program, so that this works for any network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.extend.core as jex
import numpy as np
from jaxtyping import Array

from unlearnkit.base import Model, Variables
from unlearnkit.models.layers import convolved_as
from unlearnkit.validation import named_leaves

Map: TypeAlias = tuple[int, int, int]
_BATCH = 7
"""Examples of the traced batch: a number that no axis of an image is likely to have."""
_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat", "checkpoint")
_PASSING = frozenset(
    (
        *("max", "min", "add", "sub", "mul", "div", "neg", "exp", "tanh", "logistic", "erf"),
        *("select_n", "convert_element_type", "copy", "integer_pow", "square", "stop_gradient"),
    )
)
"""Primitives that work element by element, after which a row is still the map it was."""


class _Fact(NamedTuple):
    """What is known of a value.

    Attributes:
      kernel: the leaf of the parameters that it is.
      channels: the axis of its channels.
      map: height, width and channels of the map that its rows are.
    """

    kernel: str | None = None
    channels: int | None = None
    map: Map | None = None


_Facts: TypeAlias = dict[jex.Var, _Fact]


def flattened_maps(model: Model) -> dict[str, Map]:
    """Returns the map [height, width, channels] that a linear layer takes as a row, by its kernel.

    A layer is not named if its map has one pixel, or if the network itself flattens in the order
    channel, height, width: nothing is to be moved then.

    Args:
      model: the network.
    """
    if len(model.input_shape) < 2:
        return {}
    shapes: Variables = jax.eval_shape(model.init, jax.random.key(0))
    named = named_leaves(shapes)
    structure = jax.tree.structure(shapes)
    x = jax.ShapeDtypeStruct((_BATCH, *model.input_shape), np.dtype(model.input_dtype))

    def network(leaves: list[Array], x: Array) -> Array:
        return model.apply(jax.tree.unflatten(structure, leaves), x)

    with convolved_as("xla"):
        program = jax.make_jaxpr(network)(list(named.values()), x)
    facts = [_Fact(kernel=name) for name in named]
    found: dict[str, Map] = {}
    _walk(program.jaxpr, [*facts, _Fact(channels=len(model.input_shape))], found)
    return found


def _walk(jaxpr: jex.Jaxpr, given: Sequence[_Fact], found: dict[str, Map]) -> list[_Fact]:
    """Follows maps and kernels through a program, and adds to `found` where they meet."""
    facts: _Facts = dict(zip(jaxpr.invars, given, strict=True))

    def read(atom: jex.Var | jex.Literal) -> _Fact:
        return _Fact() if isinstance(atom, jex.Literal) else facts.get(atom, _Fact())

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        body = _body(equation)
        if body is not None and len(body.invars) == len(inputs):
            outputs = _walk(body, inputs, found)
        else:
            outputs = [_step(equation, inputs, found)] * len(equation.outvars)
        facts.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _body(equation: jex.JaxprEqn) -> jex.Jaxpr | None:
    if not any(equation.primitive.name.startswith(name) for name in _CALLS):
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = equation.params.get(name)
        if inner is not None:
            body: jex.Jaxpr = getattr(inner, "jaxpr", inner)
            return body
    return None


def _step(equation: jex.JaxprEqn, inputs: Sequence[_Fact], found: dict[str, Map]) -> _Fact:
    """Returns what is known of the output of one equation."""
    name, first = equation.primitive.name, inputs[0] if inputs else _Fact()
    out = _shape(equation.outvars[0])
    if name == "conv_general_dilated":
        return _Fact(channels=equation.params["dimension_numbers"].out_spec[1])
    if name == "transpose":
        axes = equation.params["permutation"]
        moved = None if first.channels is None else axes.index(first.channels)
        return _Fact(first.kernel if axes == tuple(range(len(axes))) else None, moved)
    if name == "reshape":
        before = _shape(equation.invars[0])
        return _Fact(map=_flattened(before, out, first))
    if name == "dot_general":
        _meet(equation, inputs, found)
        return _Fact()
    if name in ("reduce_window_max", "reduce_window_sum", "reduce_window", "pad"):
        return first
    if name in _PASSING:
        known = (fact for fact in inputs if fact.map or fact.channels is not None or fact.kernel)
        return next(known, _Fact())
    return _Fact()


def _shape(atom: jex.Var | jex.Literal) -> tuple[int, ...]:
    return tuple(getattr(atom.aval, "shape", ()))


def _flattened(before: tuple[int, ...], out: tuple[int, ...], fact: _Fact) -> Map | None:
    """Returns the map whose pixels a reshape lays into a row, or None."""
    if len(before) != 4 or len(out) != 2 or before[0] != out[0]:
        return None
    if fact.channels == 1 or before[1:3] == (1, 1):
        return None
    return before[1:]


def _meet(equation: jex.JaxprEqn, inputs: Sequence[_Fact], found: dict[str, Map]) -> None:
    rows, kernel = inputs
    (left, right), _ = equation.params["dimension_numbers"]
    if rows.map and kernel.kernel and (tuple(left), tuple(right)) == ((1,), (0,)):
        found[kernel.kernel] = rows.map
