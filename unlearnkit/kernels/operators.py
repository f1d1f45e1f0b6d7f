"""Symmetric operators that compose: sums, multiples, damped ones and parts of them.

What the other kernels return is a plain function v -> A v, and what they take is one. Wrapped in a
`SymmetricOperator` it knows the vectors that it is for, is put together with others, and is handed
to and taken from scipy, lineax and matfree.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from unlearnkit.kernels import _chunks, _trees
from unlearnkit.kernels._outputs import check_fits
from unlearnkit.kernels.solvers import Operator, Vector
from unlearnkit.validation import named_leaves

LineaxOperator: TypeAlias = Any
"""A `lineax.AbstractLinearOperator`; lineax may not be installed."""
Select: TypeAlias = Callable[[str], bool]
"""Whether a leaf of this name, as `conv1/kernel`, belongs to a part."""


@runtime_checkable
class Matrix(Protocol):
    """What multiplies vectors on the host: a `LinearOperator`, a sparse matrix, a NumPy array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __matmul__(self, vector: np.ndarray, /) -> Vector: ...


@dataclasses.dataclass(frozen=True, eq=False)
class SymmetricOperator:
    """A symmetric operator v -> A v on vectors of one structure.

    `a + b`, `a - b`, `2.0 * a` and `a.damped(0.1)` are operators; so is `a.restricted_to(...)`, on
    the leaves that are selected. None computes anything before it is applied.

    Attributes:
      product: v -> A v.
      like: a vector, or shapes and dtypes of one.

    Example:
      hessian = kernels.SymmetricOperator(kernels.hvp_operator(lambda p: loss(p, x, y), params),
                                          params)
      product = (0.5 * hessian).damped(0.1)(v)
    """

    product: Operator
    like: Vector

    def __call__(self, vector: Vector) -> Vector:
        _trees.check_like("vector", vector, "the operator's vectors", self.like)
        return self.product(vector)

    @property
    def size(self) -> int:
        """The number N of unknowns."""
        return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(self.like))

    def __add__(self, other: SymmetricOperator) -> SymmetricOperator:
        if not isinstance(other, SymmetricOperator):
            return NotImplemented
        _trees.check_like("the added operator's vectors", other.like, "the first's", self.like)
        return self._with(lambda v: _trees.axpy(1, self.product(v), other.product(v)))

    def __sub__(self, other: SymmetricOperator) -> SymmetricOperator:
        return self + -1.0 * other

    def __mul__(self, factor: Array | float) -> SymmetricOperator:
        if isinstance(factor, SymmetricOperator):
            raise TypeError(
                "the product of two symmetric operators is symmetric only where they commute; "
                "apply one after the other"
            )
        return self._with(lambda v: _trees.scale(factor, self.product(v)))

    __rmul__ = __mul__

    def __neg__(self) -> SymmetricOperator:
        return -1.0 * self

    def damped(self, damping: Array | float) -> SymmetricOperator:
        """Returns v -> A v + damping v."""
        return self._with(lambda v: _trees.axpy(damping, v, self.product(v)))

    def restricted_to(self, select: Select) -> SymmetricOperator:
        """Returns the operator on the leaves whose names are selected, the others held at 0.

        It is a principal submatrix, as of one layer. Its vectors are dicts of these leaves by
        name; `part_of(v, select)` takes one out of a vector.

        Args:
          select: of the name of a leaf, as `lambda name: name.startswith("conv1/")`.

        Raises:
          ValueError: no leaf is selected; the names are told.
        """
        part = part_of(self.like, select)

        def product(vector: dict[str, Array]) -> dict[str, Array]:
            whole = [
                vector.get(name, jnp.zeros(jnp.shape(leaf), jnp.result_type(leaf)))
                for name, leaf in named_leaves(self.like).items()
            ]
            structure = jax.tree.structure(self.like)
            return part_of(self.product(jax.tree.unflatten(structure, whole)), select)

        return SymmetricOperator(product, part)

    def dense(self, *, at_once: int | None = None) -> Float[Array, "N N"]:
        """Returns the matrix, its rows and columns in the order of `ravel_pytree`.

        Args:
          at_once: products side by side; all where None.

        Raises:
          ValueError: it does not fit in memory.
        """
        dtype = jnp.result_type(*jax.tree.leaves(self.like))
        what, remedy = f"the dense operator {[self.size] * 2}", "apply it to vectors"
        check_fits(self.size**2, dtype, what, remedy)
        flat, size = self.to_flat(), self.size if at_once is None else at_once
        units = jnp.eye(self.size, dtype=dtype)
        found: Array = _chunks.map_batches(
            lambda _, rows: jax.vmap(flat)(rows), None, (units,), size
        )
        return found

    def to_flat(self) -> Callable[[Float[Array, " N"]], Float[Array, " N"]]:
        """Returns the operator on flat vectors: what matfree takes, beside such a vector."""
        unravel = ravel_pytree(_zeros(self.like))[1]
        return lambda flat: ravel_pytree(self.product(unravel(flat)))[0]

    def to_scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """Returns it as scipy's solvers and `eigsh` take it; products stay JAX's, compiled once."""
        dtype = jnp.result_type(*jax.tree.leaves(self.like))
        product = jax.jit(self.to_flat())

        def on_host(vector: np.ndarray) -> np.ndarray:
            return np.asarray(product(jnp.asarray(vector.reshape(-1), dtype)))

        shape = (self.size, self.size)
        return scipy.sparse.linalg.LinearOperator(
            shape, matvec=on_host, rmatvec=on_host, dtype=dtype
        )

    def to_lineax(self) -> LineaxOperator:
        """Returns it as `lineax.FunctionLinearOperator`, tagged symmetric.

        Raises:
          ImportError: lineax is not installed.
        """
        lineax = _lineax()
        shapes = jax.eval_shape(lambda: _zeros(self.like))
        return lineax.FunctionLinearOperator(self.product, shapes, lineax.symmetric_tag)

    def _with(self, product: Operator) -> SymmetricOperator:
        return SymmetricOperator(product, self.like)


def part_of(vector: Vector, select: Select) -> dict[str, Array]:
    """Returns the leaves of a vector whose names are selected, by name.

    Args:
      vector: a pytree.
      select: of the name of a leaf, as `conv1/kernel`.

    Raises:
      ValueError: no leaf is selected; the names are told.

    Example:
      part = kernels.part_of(params, lambda name: name.startswith("w"))
    """
    leaves = named_leaves(vector)
    found = {name: leaf for name, leaf in leaves.items() if select(name)}
    if not found:
        raise ValueError(f"no leaf is selected; there are {', '.join(leaves)}")
    return found


def from_scipy(operator: Matrix, like: Vector) -> SymmetricOperator:
    """Returns scipy's symmetric operator or sparse matrix as one of ours; products run on the host.

    Args:
      operator: [N, N], a `LinearOperator`, a sparse matrix or an array.
      like: a vector of N numbers, for structure, shapes and dtype.

    Raises:
      ValueError: it is of another size.

    Example:
      operator = kernels.from_scipy(np.diag(np.arange(4.0)), jnp.ones(4))
      product = operator(jnp.ones(4))
    """
    flat, unravel = ravel_pytree(_zeros(like))
    _check_size(operator.shape, flat.size)

    def on_host(vector: Array) -> np.ndarray:
        return np.asarray(operator @ np.asarray(vector), flat.dtype)

    def product(vector: Vector) -> Vector:
        shape = jax.ShapeDtypeStruct(flat.shape, flat.dtype)
        found = jax.pure_callback(on_host, shape, ravel_pytree(vector)[0], vmap_method="sequential")
        return unravel(found)

    return SymmetricOperator(product, like)


def from_lineax(operator: LineaxOperator) -> SymmetricOperator:
    """Returns a symmetric operator of lineax as one of ours.

    Args:
      operator: a `lineax.AbstractLinearOperator`.

    Raises:
      ValueError: its inputs and outputs differ, or it is not known to be symmetric.
      ImportError: lineax is not installed.

    Example:
      hessian = kernels.hvp_operator(lambda p: loss(p, x, y), params)
      operator = kernels.from_lineax(kernels.SymmetricOperator(hessian, params).to_lineax())
    """
    if not _lineax().is_symmetric(operator):
        raise ValueError("operator must be symmetric; tag it as lineax.symmetric_tag where it is")
    outputs = operator.out_structure()
    _trees.check_like("the operator's inputs", operator.in_structure(), "its outputs", outputs)
    return SymmetricOperator(operator.mv, operator.in_structure())


def from_matfree(
    matvec: Callable[[Float[Array, " N"]], Float[Array, " N"]], like: Vector
) -> SymmetricOperator:
    """Returns a symmetric operator on flat vectors, as matfree's functions take it, as one of ours.

    Args:
      matvec: flat v [N] -> A v [N].
      like: a vector of N numbers, for structure, shapes and dtype.

    Raises:
      ValueError: `matvec` does not map N numbers to N.

    Example:
      matrix = jnp.diag(jnp.arange(4.0))
      operator = kernels.from_matfree(lambda v: matrix @ v, {"a": jnp.ones(3), "b": jnp.ones(1)})
    """
    flat, unravel = ravel_pytree(_zeros(like))
    try:
        shape = jax.eval_shape(matvec, flat).shape
    except TypeError as error:
        raise ValueError(f"matvec does not take vectors of {flat.size} numbers: {error}") from error
    _check_size((*shape, flat.size), flat.size)
    return SymmetricOperator(lambda v: unravel(matvec(ravel_pytree(v)[0])), like)


def _check_size(shape: tuple[int, ...], size: int) -> None:
    if tuple(shape) != (size, size):
        raise ValueError(
            f"the operator is of shape {tuple(shape)}, and `like` holds {size} numbers: it must be "
            f"({size}, {size})"
        )


def _zeros(like: Vector) -> Vector:
    return jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.result_type(leaf)), like)


def _lineax() -> Any:
    try:
        import lineax
    except ImportError as error:
        raise ImportError("lineax is not installed; pip install lineax") from error
    return lineax
