"""The projection away from the gradients of examples that are seen once, and none of which is kept.

    P = I - Jᵀ (J Jᵀ + ρ)⁻¹ J = ρ (Jᵀ J + ρ)⁻¹

with J the Jacobian of the examples, a few rows at a time. Of Jᵀ J a sketch Bᵀ B of a fixed number
of rows is kept, which each new block of rows updates ("frequent directions").
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from unlearnkit.base import Params
from unlearnkit.kernels import _trees
from unlearnkit.kernels._outputs import Apply
from unlearnkit.kernels._trees import Inputs, Precision, at_precision
from unlearnkit.kernels.ntk import jacobian


class StreamedProjection(NamedTuple):
    """P of the rows up to now.

    Attributes:
      rows: B [k, p], orthogonal to each other.
      lost: at most ‖Jᵀ J - Bᵀ B‖₂; 0 as long as J has a rank of at most k, and P is exact.
    """

    rows: Float[Array, "k p"]
    lost: Float[Array, ""]

    @at_precision
    def project(
        self,
        vector: Float[Array, " p"],
        *,
        damping: Array | float = 0.0,
        precision: Precision = "highest",
    ) -> Float[Array, " p"]:
        """Returns P v.

        Args:
          vector: v.
          damping: ρ >= 0; 0 takes away all that lies in the span of the rows.
          precision: of the matrix products; see `Precision`.
        """
        squares = jnp.sum(self.rows**2, axis=1)
        scale = jnp.where(squares > 0, squares + damping, 1)
        found: Array = vector - self.rows.T @ ((self.rows @ vector) / scale)
        return found

    @at_precision
    def add(
        self, rows: Float[Array, "m p"], *, precision: Precision = "highest"
    ) -> StreamedProjection:
        """Returns P of these rows too, in O((k + m)² p).

        Args:
          rows: of J; as many at a time as fit beside B.
          precision: of the matrix products; see `Precision`.
        """
        k = len(self.rows)
        both = jnp.concatenate([self.rows, rows])
        values, vectors = jnp.linalg.eigh(both @ both.T)
        values, vectors = values[::-1], vectors[:, ::-1]
        eps = jnp.finfo(values.dtype).eps * len(values) * values[0]
        values = jnp.where(values > eps, values, 0)
        shrunk = values[:k] - values[k]
        # Directions u_i Bᵀ of length √λ_i become √(λ_i - λ_{k+1}) long.
        factors = jnp.sqrt(shrunk / jnp.where(values[:k] > 0, values[:k], 1))
        return StreamedProjection((factors * vectors[:, :k]).T @ both, self.lost + values[k])


@at_precision
def stream_projection(
    apply: Apply,
    params: Params,
    x: Inputs,
    *,
    rank: int,
    chunk: int = 16,
    start: StreamedProjection | None = None,
    precision: Precision = "highest",
) -> StreamedProjection:
    """Returns P of the gradients of all outputs of `x`, in one pass and with `rank` p numbers.

    Neither J nor J Jᵀ is held. ‖Jᵀ J - Bᵀ B‖₂ <= ‖J‖²_F / (rank + 1). With g = Jᵀ r, which is a sum
    over examples too, P g / ρ is the solution Jᵀ (J Jᵀ + ρ)⁻¹ r of a ridge regression on them.

    Args:
      apply: (params, x) -> outputs [n, ...], a row of its own input alone.
      params: where; vectors are in the order of `ravel_pytree`.
      x: [n, ...] inputs, an array or a pytree of arrays.
      rank: rows that are kept.
      chunk: inputs at a time.
      start: of examples that were seen before, and are not needed again.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: `rank` or `chunk` < 1, or a start of another size.

    Example:
      away = kernels.stream_projection(apply, params, x, rank=200)
      flat = jax.flatten_util.ravel_pytree(v)[0]
      moved = away.project(flat)  # a step that changes no output at x, to first order

    Source: Golatkar et al. 2020b, §6, which leaves an incremental P to future work; Liberty 2013,
    Simple and deterministic matrix sketching.
    """
    flat = ravel_pytree(params)[0]
    if rank < 1 or chunk < 1:
        raise ValueError(f"rank and chunk must be >= 1, got {rank} and {chunk}")
    if start is not None and start.rows.shape != (rank, flat.size):
        raise ValueError(
            f"start must be of rank {rank} and {flat.size} weights, got {start.rows.shape}"
        )
    nothing = jnp.zeros((rank, flat.size), flat.dtype), jnp.zeros((), flat.dtype)
    found = StreamedProjection(*nothing) if start is None else start
    for begin in range(0, _trees.count(x), chunk):
        part = jax.tree.map(lambda leaf, b=begin: leaf[b : b + chunk], x)
        found = _add_inputs(apply, precision, params, part, found)
    return found


@partial(jax.jit, static_argnums=(0, 1))
def _add_inputs(
    apply: Apply, precision: Precision, params: Params, x: Inputs, found: StreamedProjection
) -> StreamedProjection:
    leaves = jax.tree.leaves(jacobian(apply, params, x))  # at the precision of the caller
    outputs = jax.eval_shape(apply, params, x).size
    rows = jnp.concatenate([leaf.reshape(outputs, -1) for leaf in leaves], axis=1)
    more: StreamedProjection = found.add(rows, precision=precision)
    return more
