"""Vector arithmetic on pytrees, shared by the kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce, wraps
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from unlearnkit.validation import check_choice

P = ParamSpec("P")
R = TypeVar("R")

Inputs: TypeAlias = Any
"""Arrays [n, ...], an array or a pytree of them, as a dict of tokens and a mask."""
Precision: TypeAlias = Literal["highest", "high", "tensorfloat32", "bfloat16", "default"]
"""Of matrix products of float32, as `jax.default_matmul_precision` names it: `highest` computes in
float32, `tensorfloat32` and `bfloat16` round the factors where the device is faster so, `high` lies
between, and `default` is the device's own choice. On a CPU all are float32."""


def at_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Runs `function` with float32 matmuls at its keyword argument `precision`.

    Where it is not given it is `highest`: curvature does not survive TF32.
    """

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        precision: Any = kwargs.get("precision", "highest")
        check_choice("precision", precision, Precision)
        with jax.default_matmul_precision(precision):
            return function(*args, **kwargs)

    return wrapped


def dot(a: Any, b: Any) -> Array:
    """Returns a·b over all leaves."""
    products = jax.tree.map(lambda x, y: jnp.vdot(x, y, precision="highest"), a, b)
    found: Array = reduce(jnp.add, jax.tree.leaves(products))
    return found


def unit(a: Any) -> Array:
    """Returns the greatest power of two that is at most max |a_i|; 1 where a = 0.

    Divided by it, which is exact, a has squares that neither vanish nor overflow.
    """
    leaves = jax.tree.leaves(a)
    largest = reduce(jnp.maximum, [jnp.max(jnp.abs(leaf), initial=0) for leaf in leaves])
    power = jnp.ldexp(jnp.ones_like(largest), jnp.frexp(largest)[1] - 1)
    return jnp.where(largest > 0, power, 1)


def norm(a: Any, inner: Callable[[Any, Any], Array] = dot) -> Array:
    """Returns ‖a‖₂ over all leaves, of numbers however small or large.

    Args:
      a: an array, or a pytree of them.
      inner: another inner product, whose norm is returned; 0 where rounding makes it negative.

    Example:
      size = kernels.tree_norm(params)
    """
    size = unit(a)
    small = divide(a, size)
    return size * jnp.sqrt(jnp.maximum(inner(small, small), 0))


def rayleigh_quotient(v: Any, av: Any, inner: Callable[[Any, Any], Array] = dot) -> Array:
    """Returns v·(A v) / v·v, of vectors however small or large; NaN where v = 0.

    Args:
      v: an array, or a pytree of them.
      av: A v, like it.
      inner: the inner product, Euclidean by default.

    Example:
      curvature = kernels.rayleigh_quotient(v, kernels.hvp(lambda p: loss(p, x, y), params, v))
    """
    size = unit(v)
    v = divide(v, size)
    return inner(v, divide(av, size)) / inner(v, v)


def axpy(scale: Any, x: Any, y: Any) -> Any:
    """Returns scale x + y in the dtypes of y."""
    return jax.tree.map(lambda u, v: (scale * u + v).astype(v.dtype), x, y)


def scale(factor: Any, x: Any) -> Any:
    """Returns factor x in the dtypes of x."""
    return jax.tree.map(lambda u: (factor * u).astype(u.dtype), x)


def divide(x: Any, divisor: Any) -> Any:
    """Returns x / divisor in the dtypes of x."""
    return jax.tree.map(lambda u: (u / divisor).astype(u.dtype), x)


def subtract(a: Any, b: Any) -> Any:
    """Returns a - b."""
    return jax.tree.map(jnp.subtract, a, b)


def zeros_like(a: Any) -> Any:
    """Returns zeros in the shape of a."""
    return jax.tree.map(jnp.zeros_like, a)


def check_like(name: str, tree: Any, reference_name: str, reference: Any) -> None:
    """Raises ValueError if `tree` has not the structure and shapes of `reference`."""
    structure: Any = jax.tree.structure(tree)
    expected: Any = jax.tree.structure(reference)
    if structure != expected:
        raise ValueError(
            f"{name} must have the structure of {reference_name}, got {structure} for {expected}"
        )
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    wanted = [jnp.shape(leaf) for leaf in jax.tree.leaves(reference)]
    if shapes != wanted:
        raise ValueError(
            f"{name} must have the shapes of {reference_name}, got {shapes} for {wanted}"
        )


def check_scalar(name: str, function: Callable[..., Any], *args: Any) -> None:
    """Raises ValueError if the value of `function` at `args` is not one real scalar."""
    shape = getattr(jax.eval_shape(function, *args), "shape", None)
    if shape != ():
        raise ValueError(f"{name} must return one scalar, got shape {shape}; take its mean")


def count(x: Inputs) -> int:
    """Returns the number n of examples in arrays [n, ...]."""
    return int(jax.tree.leaves(x)[0].shape[0])


def rows(x: Inputs, start: int, stop: int | None) -> Inputs:
    """Returns the examples from `start` to before `stop`."""
    return jax.tree.map(lambda leaf: leaf[start:stop], x)


def check_positive(**values: int) -> None:
    """Raises ValueError if a count is below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
