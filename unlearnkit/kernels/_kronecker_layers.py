"""Finds the layers y = a W + b of a network in its program: dense ones, and convolutions.

The program of one example is run equation by equation. Where a kernel meets its input, the input is
kept, for a convolution as the patches that the kernel sees, and a place is made through which the
derivative by the output is read. A bias is that of a layer if it is added to its output. The
network itself stays as it is, and may be of flax.linen, flax.nnx or plain functions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jaxtyping import Array

from unlearnkit.base import Params
from unlearnkit.kernels._dense_layers import CALLS, bind, program_of
from unlearnkit.validation import named_leaves

Apply: TypeAlias = Callable[[Params, Array], Array]
_RESHAPES = ("reshape", "broadcast_in_dim", "squeeze", "expand_dims")
_SUMS = ("add", "add_any")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Layout:
    """Which leaves of the parameters belong together.

    Attributes:
      layers: for each layer the positions of its kernel and of its bias, None without one.
      others: the positions of leaves that are no layer's, as the scales of a normalisation.
    """

    layers: tuple[tuple[int, int | None], ...]
    others: tuple[int, ...]


class _Kernel(NamedTuple):
    """A kernel on its way through the program."""

    position: int
    value: Array


class _Bias(NamedTuple):
    """A vector of parameters on its way to the output of a layer."""

    position: int
    value: Array


class _Product(NamedTuple):
    """The output of a layer, before its bias."""

    position: int
    value: Array


Value: TypeAlias = Array | _Kernel | _Bias | _Product


class Watch:
    """Watches a run of the program.

    Attributes:
      additions: by the position of a kernel, what is added to its layer's output.
      seen: by the position of a kernel, the rows [t, in] that it was multiplied with.
      shapes: by the position of a kernel, the shape of its layer's output.
      biases: by the position of a kernel, that of its bias.
      misused: kernels and biases that are used in another way, or twice.
    """

    def __init__(self, additions: dict[int, Array]) -> None:
        self.additions = additions
        self.seen: dict[int, Array] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.biases: dict[int, int] = {}
        self.misused: set[int] = set()

    def release(self, value: Value) -> Array:
        """Returns the array of a value that is used in no way known here."""
        if isinstance(value, _Kernel | _Bias):
            self.misused.add(value.position)
        return value.value if isinstance(value, _Kernel | _Bias | _Product) else value

    def layer(self, position: int, rows: Array, product: Array) -> _Product:
        """Returns the output of a layer, with what is added to it."""
        if position in self.seen:
            self.misused.add(position)
        self.seen[position] = rows
        self.shapes[position] = product.shape
        addition = self.additions.get(position)
        return _Product(position, product if addition is None else product + addition)

    def add(self, product: _Product, bias: _Bias) -> None:
        """Notes that a vector is the bias of a layer."""
        if bias.position in self.biases.values() or product.position in self.biases:
            self.misused.add(bias.position)
        self.biases[product.position] = bias.position


def find_layers(apply: Apply, params: Params, one: Array) -> Layout:
    """Returns the layout of a network's parameters, found by a traced run on one example.

    Args:
      apply: (params, x [n, ...]) -> [n, c].
      params: of the network.
      one: an example.

    Raises:
      ValueError: an array of two axes or more is no kernel of a layer that is known here.
    """
    leaves = jax.tree.leaves(params)
    watch = Watch({})
    program = program_of(apply, params, one)

    def run(leaves: list[Array], one: Array) -> Array:
        return run_watched(program, leaves, one, watch)

    jax.eval_shape(run, leaves, one)
    kernels = [i for i in watch.seen if i not in watch.misused]
    unknown = [
        name
        for i, (name, leaf) in enumerate(named_leaves(params).items())
        if jnp.ndim(leaf) >= 2 and i not in kernels
    ]
    if unknown:
        raise ValueError(
            f"K-FAC does not know what the network does with {', '.join(unknown)}: it knows dense "
            "layers h @ W and convolutions of NHWC images by an HWIO kernel without dilation or "
            "groups, each used once; this library's networks with convolutions need "
            "implementation='xla' or 'bilinear'"
        )
    biases = {k: b for k, b in watch.biases.items() if b not in watch.misused}
    layers = tuple((i, biases.get(i)) for i in sorted(kernels))
    held = {i for pair in layers for i in pair}
    return Layout(layers, tuple(i for i in range(len(leaves)) if i not in held))


def run_watched(
    program: jex.ClosedJaxpr, leaves: Sequence[Array], one: Array, watch: Watch
) -> Array:
    """Returns the outputs [c] for one example."""
    arguments: list[Value] = [
        _Kernel(i, leaf) if leaf.ndim >= 2 else _Bias(i, leaf) if leaf.ndim == 1 else leaf
        for i, leaf in enumerate(leaves)
    ]
    return watch.release(_run(program, [*arguments, one], watch)[0])


def _run(program: jex.ClosedJaxpr, arguments: Sequence[Value], watch: Watch) -> list[Value]:
    constants = [jnp.asarray(value) for value in program.consts]
    values: dict[jex.Var, Value] = dict(zip(program.jaxpr.constvars, constants, strict=True))
    values.update(zip(program.jaxpr.invars, arguments, strict=True))

    def read(atom: jex.Var | jex.Literal) -> Value:
        if isinstance(atom, jex.Literal):
            return jnp.asarray(atom.val, getattr(atom.aval, "dtype", None))
        return values[atom]

    for equation in program.jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if equation.primitive.name in CALLS:
            outputs = _run(equation.params["jaxpr"], inputs, watch)
        else:
            outputs = _evaluate(equation, inputs, watch)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in program.jaxpr.outvars]


def _evaluate(equation: jex.JaxprEqn, inputs: list[Value], watch: Watch) -> list[Value]:
    name = equation.primitive.name
    if len(inputs) == 2 and isinstance(inputs[1], _Kernel) and not isinstance(inputs[0], _Kernel):
        h, kernel = watch.release(inputs[0]), inputs[1]
        rows = _rows_of(equation, h, kernel.value)
        if rows is not None:
            product = bind(equation, [h, kernel.value])[0]
            return [watch.layer(kernel.position, rows, product)]
    if name in _SUMS and {type(value) for value in inputs} == {_Product, _Bias}:
        product, bias = sorted(inputs, key=lambda value: isinstance(value, _Bias))
        assert isinstance(product, _Product)
        assert isinstance(bias, _Bias)
        features = product.value.shape[-1]
        if bias.value.size == features or bias.value.shape == product.value.shape:
            watch.add(product, bias)
            return [*bind(equation, [_free(value) for value in inputs])]
    if name in _RESHAPES and len(inputs) == 1 and isinstance(inputs[0], _Bias):
        value = bind(equation, [inputs[0].value])[0]
        if _lies_along_the_last_axis(equation, inputs[0].value, value):
            return [_Bias(inputs[0].position, value)]
    return [*bind(equation, [watch.release(value) for value in inputs])]


def _free(value: Value) -> Array:
    """Returns the array of a value, which is used as it should be."""
    return value.value if isinstance(value, _Kernel | _Bias | _Product) else value


def _lies_along_the_last_axis(equation: jex.JaxprEqn, before: Array, after: Array) -> bool:
    if after.ndim == 0 or before.shape[-1:] != after.shape[-1:]:
        return False
    if equation.primitive.name == "broadcast_in_dim":
        along: tuple[int, ...] = equation.params["broadcast_dimensions"]
        return along[-1:] == (after.ndim - 1,)
    return after.size == before.size


def _rows_of(equation: jex.JaxprEqn, h: Array, kernel: Array) -> Array | None:
    """Returns the rows [t, in] by which an equation multiplies a kernel; None if it is no layer.

    They are in the order of the kernel's axes.
    """
    name, given = equation.primitive.name, equation.params
    if name == "dot_general" and kernel.ndim == 2:
        plain = (((h.ndim - 1,), (0,)), ((), ()))
        return h.reshape(-1, h.shape[-1]) if given["dimension_numbers"] == plain else None
    if kernel.ndim != 4 or h.ndim != 4:
        return None
    if name == "convolve":
        window = given["window"]
        return _patches(h, kernel, (window.stride,) * 2, [(window.padding,) * 2] * 2)
    if name != "conv_general_dilated":
        return None
    numbers = given["dimension_numbers"]
    plain_axes = numbers.lhs_spec == numbers.out_spec == (0, 3, 1, 2)
    plain_conv = (
        plain_axes
        and numbers.rhs_spec == (3, 2, 0, 1)
        and set(given["lhs_dilation"]) == set(given["rhs_dilation"]) == {1}
        and given["feature_group_count"] == given["batch_group_count"] == 1
    )
    if not plain_conv:
        return None
    return _patches(h, kernel, given["window_strides"], given["padding"])


def _patches(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> Array:
    """Returns what a convolution's kernel sees at each place of its output, [t, s s c]."""
    height, width, channels, _ = kernel.shape
    # Padding may be negative, where a convolution crops.
    config = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), config)
    rows, columns = (
        (side - size) // stride + 1
        for side, size, stride in zip(x.shape[1:3], (height, width), strides, strict=True)
    )
    shifts = [
        x[
            :,
            a : a + (rows - 1) * strides[0] + 1 : strides[0],
            b : b + (columns - 1) * strides[1] + 1 : strides[1],
        ]
        for a in range(height)
        for b in range(width)
    ]
    return jnp.stack(shifts, axis=3).reshape(-1, height * width * channels)
