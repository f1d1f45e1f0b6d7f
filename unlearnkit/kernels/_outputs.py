"""Outputs of a network of any shape, seen as [n, c], and what of them a kernel is of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from unlearnkit.base import Params
from unlearnkit.costs import available_bytes
from unlearnkit.kernels import _trees
from unlearnkit.kernels._trees import Inputs
from unlearnkit.validation.separability import check_rows_alone

Apply: TypeAlias = Callable[[Params, Inputs], Array]
"""(params, x [n, ...]) -> outputs [n, ...], a row of its own input alone."""


@dataclasses.dataclass(frozen=True)
class Flat:
    """A network with its outputs as rows [n, c]; equal where the networks are."""

    apply: Apply

    def __call__(self, params: Params, x: Inputs) -> Array:
        outputs = self.apply(params, x)
        return outputs.reshape(outputs.shape[0], -1)


@dataclasses.dataclass(frozen=True)
class Summed:
    """A network with the sum of its c outputs over √c as its only one, [n]."""

    apply: Apply

    def __call__(self, params: Params, x: Inputs) -> Array:
        rows = Flat(self.apply)(params, x)
        return rows.sum(axis=1) / math.sqrt(rows.shape[1])


@dataclasses.dataclass(frozen=True)
class Axes:
    """Which of the outputs' axes a kernel sums over, and of which it has the diagonal alone.

    Attributes:
      outputs: the shape of one example's outputs.
      kept: axes that stay for both inputs.
      traced: axes that are summed over.
      diagonal: axes that are there once.
    """

    outputs: tuple[int, ...]
    kept: tuple[int, ...]
    traced: tuple[int, ...]
    diagonal: tuple[int, ...]

    def sizes(self, axes: Sequence[int]) -> tuple[int, ...]:
        """Returns the sizes of these axes."""
        return tuple(self.outputs[axis] for axis in axes)

    def split(self, rows: Array) -> Array:
        """Returns [n, c, ...] with the outputs apart, [n, kept, traced, diagonal, ...]."""
        rest = rows.shape[2:]
        order = (*self.kept, *self.traced, *self.diagonal)
        behind = range(1 + len(self.outputs), 1 + len(self.outputs) + len(rest))
        apart = rows.reshape(len(rows), *self.outputs, *rest)
        apart = apart.transpose(0, *(1 + axis for axis in order), *behind)
        groups = [math.prod(self.sizes(g)) for g in (self.kept, self.traced, self.diagonal)]
        return apart.reshape(len(rows), *groups, *rest)


def check_params(params: Params) -> None:
    """Raises ValueError if there is no derivative in a leaf."""
    for place, leaf in jax.tree.leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"params must be real floating point, but params{jax.tree_util.keystr(place)} is "
                f"{dtype}; close `apply` over what is not trained"
            )


def check_outputs(apply: Apply, params: Params, x: Inputs) -> tuple[int, ...]:
    """Returns the shape of the outputs of one example.

    Raises:
      ValueError: they are no array of real numbers with a row for each input, or a row changes with
        the other inputs (not asked under a transformation); or `params` are not real.
    """
    check_params(params)
    found = jax.eval_shape(apply, params, _trees.rows(x, 0, 1))
    if not isinstance(found, jax.ShapeDtypeStruct):
        raise ValueError(
            f"apply must return one array of outputs, got a {type(found).__name__}; return the "
            "part of it that the kernel is of"
        )
    if found.shape[:1] != (1,):
        raise ValueError(
            f"apply must map x [n, ...] to outputs [n, ...], but 1 input gave {found.shape}"
        )
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"outputs must be real floating point, got {found.dtype}")
    check_rows_alone(apply, params, x)
    outputs: tuple[int, ...] = found.shape[1:]
    return outputs


def choose_axes(
    outputs: tuple[int, ...], trace_axes: Sequence[int], diagonal_axes: Sequence[int]
) -> Axes:
    """Returns the axes of one example's outputs, told by their places in [n, ...].

    Args:
      outputs: the shape of one example's outputs.
      trace_axes: from 1, or from the end.
      diagonal_axes: likewise.

    Raises:
      ValueError: an axis that is not there, the examples' own, or one given twice.
    """
    ndim = 1 + len(outputs)
    given = [axis + ndim if axis < 0 else axis for axis in (*trace_axes, *diagonal_axes)]
    if any(not 1 <= axis < ndim for axis in given) or len(set(given)) < len(given):
        raise ValueError(
            f"trace_axes and diagonal_axes must be different axes of the outputs [n, "
            f"{', '.join(map(str, outputs))}] from 1 to {ndim - 1}, got {tuple(trace_axes)} and "
            f"{tuple(diagonal_axes)}"
        )
    places = [axis - 1 for axis in given]
    kept = tuple(axis for axis in range(len(outputs)) if axis not in places)
    return Axes(outputs, kept, tuple(places[: len(trace_axes)]), tuple(places[len(trace_axes) :]))


def check_fits(numbers: int, dtype: jnp.dtype, what: str, remedy: str) -> None:
    """Raises ValueError if an array needs more memory than there is.

    Args:
      numbers: in it.
      dtype: of each.
      what: how the message calls it.
      remedy: what to do instead.
    """
    needed, free = numbers * dtype.itemsize, available_bytes()
    if free is not None and needed > free:
        raise ValueError(
            f"{what} takes {needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free; "
            f"{remedy}"
        )
