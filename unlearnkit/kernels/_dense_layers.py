"""Finds the dense layers of a network in its program, and the factors of their Jacobians.

Where a kernel W [in, out] is used once, as h @ W for the one row h of an example, the Jacobian of
its outputs is a product h ⊗ g, with g the derivative in h @ W. A Gram matrix of such rows is the
product of two small ones: in + out numbers per example in place of in x out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array

from unlearnkit.base import Params

CALLS = ("jit", "pjit", "closed_call")


Apply = Callable[[Params, Any], Array]
"""(params, examples) -> [n, c]; examples are a pytree of arrays [n, ...]."""


class Factors(NamedTuple):
    """The Jacobian of n examples with c outputs, in pieces.

    Attributes:
      inputs: for each dense kernel, h [n, in].
      slopes: for each dense kernel, g [n, c, out].
      rest: for each other leaf, its Jacobian [n, c, size].
    """

    inputs: list[Array]
    slopes: list[Array]
    rest: list[Array]


class _Kernel(NamedTuple):
    """A dense kernel on its way through the program."""

    position: int
    value: Array


class _Taps:
    """Watches a run of the program: adds to the outputs of dense layers, keeps their inputs."""

    def __init__(self, additions: dict[int, Array]) -> None:
        self.additions = additions
        self.inputs: dict[int, Array] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.misused: set[int] = set()

    def release(self, value: Any) -> Any:
        """Returns the array of a kernel that is used in any other way than h @ W."""
        if isinstance(value, _Kernel):
            self.misused.add(value.position)
            return value.value
        return value

    def dense(self, h: Array, kernel: _Kernel, product: Array) -> Array:
        if kernel.position in self.inputs:
            self.misused.add(kernel.position)
        self.inputs[kernel.position] = h.reshape(-1)
        self.shapes[kernel.position] = product.shape
        addition = self.additions.get(kernel.position)
        return product if addition is None else product + addition.reshape(product.shape)


def inner_products(left: Sequence[Array], right: Sequence[Array]) -> Any:
    """Returns the sum over pairs a [n, c, s], b [m, d, s] of Σ_s a b, [n, c, m, d]."""
    total: Any = 0
    for a, b in zip(left, right, strict=True):
        total = total + jnp.tensordot(a, b, axes=(2, 2))
    return total


def contract(one: Factors, two: Factors) -> Array:
    """Returns the product of one Jacobian with the other's transpose, [n, c, m, c]."""
    total: Array = inner_products(one.rest, two.rest)
    for h1, g1, h2, g2 in zip(one.inputs, one.slopes, two.inputs, two.slopes, strict=True):
        total = total + (h1 @ h2.T)[:, None, :, None] * inner_products([g1], [g2])
    return total


def along(pieces: Factors, direction: Sequence[Array], dense: tuple[int, ...]) -> Array:
    """Returns the product of a Jacobian with a direction, its leaves in order, [n, c].

    Args:
      pieces: the Jacobian.
      direction: an array for each leaf of the parameters.
      dense: the positions of the leaves that `pieces` has as factors.
    """
    rest = [leaf for i, leaf in enumerate(direction) if i not in dense]
    total: Any = 0
    for jacobian, leaf in zip(pieces.rest, rest, strict=True):
        total = total + jacobian @ leaf.reshape(-1)
    for h, g, position in zip(pieces.inputs, pieces.slopes, dense, strict=True):
        total = total + jnp.einsum("no,nco->nc", h @ direction[position], g)
    found: Array = total
    return found


def scaled(pieces: Factors) -> tuple[Factors, Array]:
    """Returns the pieces of a Jacobian over its size, and that: none of their squares vanishes."""

    def largest(part: Array) -> Array:
        return jnp.max(jnp.abs(part), initial=0)

    def over(part: Array, size: Array) -> Array:
        return part / jnp.where(size > 0, size, 1)

    inputs, slopes = ([largest(p) for p in parts] for parts in (pieces.inputs, pieces.slopes))
    products = [a * b for a, b in zip(inputs, slopes, strict=True)]
    size = jnp.max(jnp.stack([*products, *map(largest, pieces.rest)]))
    size = jnp.where(size > 0, size, 1)
    h = [over(part, a) for part, a in zip(pieces.inputs, inputs, strict=True)]
    shares = [product / size for product in products]
    g = [over(p, b) * share for p, b, share in zip(pieces.slopes, slopes, shares, strict=True)]
    return Factors(h, g, [part / size for part in pieces.rest]), size


def squares(pieces: Factors) -> Array:
    """Returns the squared norm of the Jacobian of each example and output, [n, c]."""
    total: Any = 0
    for jacobian in pieces.rest:
        total = total + jnp.sum(jacobian**2, axis=2)
    for h, g in zip(pieces.inputs, pieces.slopes, strict=True):
        total = total + jnp.sum(h**2, axis=1)[:, None] * jnp.sum(g**2, axis=2)
    found: Array = total
    return found


def dense_kernels(apply: Apply, params: Params, one: Any) -> tuple[int, ...]:
    """Returns the positions of the leaves that are dense kernels for a single example `one`."""
    leaves = jax.tree.leaves(params)
    candidates = [i for i, leaf in enumerate(leaves) if jnp.ndim(leaf) == 2]
    program = program_of(apply, params, one)
    taps = _Taps({})

    def watch(leaves: Sequence[Array], one: Any) -> Any:
        return _run_network(program, leaves, one, candidates, taps)

    jax.eval_shape(watch, leaves, one)
    return tuple(i for i in candidates if i in taps.inputs and i not in taps.misused)


def factors(apply: Apply, params: Params, x: Any, dense: tuple[int, ...]) -> Factors:
    """Returns the pieces of the Jacobian at the examples x, a pytree of arrays [n, ...]."""
    leaves = jax.tree.leaves(params)
    program = program_of(apply, params, jax.tree.map(lambda leaf: leaf[0], x))
    others = [i for i in range(len(leaves)) if i not in dense]

    def of_example(one: Any) -> Factors:
        def outputs(rest: list[Array], additions: list[Array]) -> tuple[Array, list[Array]]:
            held = list(leaves)
            for i, leaf in zip(others, rest, strict=True):
                held[i] = leaf
            taps = _Taps(dict(zip(dense, additions, strict=True)))
            out = _run_network(program, held, one, dense, taps)
            return out, [taps.inputs[i] for i in dense]

        rest = [leaves[i] for i in others]
        additions = [jnp.zeros(leaves[i].shape[1], leaves[i].dtype) for i in dense]
        out, pullback, inputs = jax.vjp(outputs, rest, additions, has_aux=True)
        of_rest, slopes = jax.vmap(pullback)(jnp.eye(out.size, dtype=out.dtype))
        return Factors(inputs, slopes, [leaf.reshape(out.size, -1) for leaf in of_rest])

    return jax.vmap(of_example)(x)


def program_of(apply: Apply, params: Params, one: Any) -> Any:
    """Returns the program that makes the outputs [c] for one example of a network's leaves."""
    leaves, structure = jax.tree.flatten(params)

    def network(leaves: Sequence[Array], one: Any) -> Array:
        batch = jax.tree.map(lambda leaf: leaf[None], one)
        return apply(jax.tree.unflatten(structure, leaves), batch)[0]

    return jax.make_jaxpr(network)(leaves, one)


def _run_network(
    program: Any, leaves: Sequence[Array], one: Any, watched: Sequence[int], taps: _Taps
) -> Array:
    arguments = [_Kernel(i, v) if i in watched else v for i, v in enumerate(leaves)]
    found: Array = taps.release(_run(program, [*arguments, *jax.tree.leaves(one)], taps)[0])
    return found


def _run(program: Any, arguments: Sequence[Any], taps: _Taps) -> list[Any]:
    """Evaluates a program, following kernels into the functions that it calls."""
    values = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    values.update(zip(program.jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in program.jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if equation.primitive.name in CALLS:
            outputs = _run(equation.params["jaxpr"], inputs, taps)
        elif _is_dense(equation, inputs):
            h, kernel = inputs
            outputs = [taps.dense(h, kernel, bind(equation, [h, kernel.value])[0])]
        else:
            outputs = bind(equation, [taps.release(value) for value in inputs])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in program.jaxpr.outvars]


def _is_dense(equation: Any, inputs: Sequence[Any]) -> bool:
    if equation.primitive.name != "dot_general" or not isinstance(inputs[1], _Kernel):
        return False
    h, kernel = inputs
    if isinstance(h, _Kernel) or h.size != kernel.value.shape[0]:
        return False
    found: bool = equation.params["dimension_numbers"] == (((h.ndim - 1,), (0,)), ((), ()))
    return found


def bind(equation: Any, inputs: Sequence[Any]) -> list[Any]:
    """Returns the outputs of an equation for its inputs."""
    bound = equation.primitive.get_bind_params(equation.params)
    # JAX below 0.10 kept the functions of a call apart from its parameters.
    functions, parameters = bound if isinstance(bound, tuple) else ((), bound)
    outputs = equation.primitive.bind(*functions, *inputs, **parameters)
    return list(outputs) if equation.primitive.multiple_results else [outputs]
