"""Products with the empirical neural tangent kernel that do not store it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from unlearnkit.base import Params
from unlearnkit.kernels import _ring, _trees
from unlearnkit.kernels._outputs import Apply, check_outputs
from unlearnkit.kernels._trees import Inputs, Precision, at_precision, count
from unlearnkit.kernels.curvature import jacobian_transpose_vp, jacobian_vp


@at_precision
def ntk_operator(
    apply: Apply,
    params: Params,
    x: Inputs,
    *,
    damping: Array | float,
    chunk: int | None = None,
    mesh: Mesh | None = None,
    precision: Precision = "highest",
) -> Callable[[Float[Array, "n ..."]], Float[Array, "n ..."]]:
    """Returns v -> Θ v + damping v for the empirical NTK Θ = J Jᵀ of `x`, no kernel stored.

    One vector-Jacobian and one Jacobian-vector product over the inputs. Build it inside the
    compiled function that uses it, with `params` and `x` as that function's arguments.

    Args:
      apply: (params, x) -> outputs [n, ...].
      params: where.
      x: [n, ...] inputs, an array or a pytree of arrays.
      damping: λ, added to the diagonal.
      chunk: where None, the network is linearised once and its activations are kept; otherwise they
        are computed anew for `chunk` inputs at a time, and memory does not grow with n.
      mesh: of one axis, whose devices take equally many successive inputs each, their activations
        and their part of the vectors; a product sums Jᵀ v over them. It is that of one device up to
        rounding. None for one device.
      precision: of the matrix products; see `Precision`.

    Returns:
      The operator on vectors like the outputs, symmetric positive semi-definite where damping >= 0.

    Raises:
      ValueError: `apply` does not return one array of a row for each input or mixes its inputs (not
        asked under a transformation), `chunk` < 1, or a mesh cannot share the inputs evenly; a
        vector is not like the outputs.

    Example:
      ntk = kernels.ntk_operator(apply, params, x, damping=0.1)  # no kernel is stored
      product = ntk(apply(params, x))  # [n, c]

    Source: Golatkar et al. 2020b, equation (10), whose kernel is of size (n c)².
    """
    product = _between(apply, params, (x, x), chunk, mesh, precision)

    def damped(vector: Array) -> Array:
        found: Array = product(vector) + damping * vector
        return found

    return damped


@at_precision
def cross_ntk_operator(
    apply: Apply,
    params: Params,
    x1: Inputs,
    x2: Inputs,
    *,
    chunk: int | None = None,
    mesh: Mesh | None = None,
    precision: Precision = "highest",
) -> Callable[[Float[Array, "n2 ..."]], Float[Array, "n1 ..."]]:
    """Returns v -> Θ(x1, x2) v = J(x1) J(x2)ᵀ v, no kernel stored; as to predict at new inputs.

    Args:
      apply: (params, x) -> outputs [n, ...].
      params: where.
      x1: [n1, ...] inputs of the rows.
      x2: [n2, ...] inputs of the columns.
      chunk: see `ntk_operator`.
      mesh: see `ntk_operator`; it shares both sets of inputs.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: see `ntk_operator`.

    Example:
      cross = kernels.cross_ntk_operator(apply, params, x[:5], x)
      change = cross(apply(params, x))  # [5, c]
    """
    return _between(apply, params, (x1, x2), chunk, mesh, precision)


def _between(
    apply: Apply,
    params: Params,
    inputs: tuple[Inputs, Inputs],
    chunk: int | None,
    mesh: Mesh | None,
    precision: Precision,
) -> Callable[[Array], Array]:
    """Returns v -> J(x1) J(x2)ᵀ v for two sets of inputs, linearised once where they are one."""
    columns = inputs[1]
    outputs = (count(columns), *check_outputs(apply, params, columns))
    if mesh is not None:
        for x in inputs:
            _ring.check_shares(count(x), mesh)
    if chunk is None:
        product = _linearised(apply, params, inputs, mesh)
    else:
        _trees.check_positive(chunk=chunk)
        product = _chunked(apply, params, inputs, chunk, mesh, precision)

    def checked(vector: Array) -> Array:
        if vector.shape != outputs:
            raise ValueError(f"vector must be like the outputs {outputs}, got {vector.shape}")
        return product(vector)

    return checked


def _linearised(
    apply: Apply, params: Params, inputs: tuple[Inputs, Inputs], mesh: Mesh | None
) -> Callable[[Array], Array]:
    def shared(examples: Inputs) -> Inputs:
        return examples if mesh is None else _ring.constrain_rows(examples, mesh)

    params = params if mesh is None else _ring.constrain_to_all(params, mesh)

    def pushforward_at(x: Inputs) -> Callable[[Params], Array]:
        x = shared(x)
        return jax.linearize(lambda p: apply(p, x), params)[1]

    push = pushforward_at(inputs[0])
    other = push if inputs[1] is inputs[0] else pushforward_at(inputs[1])
    pullback = jax.linear_transpose(other, params)

    def product(vector: Array) -> Array:
        found: Array = shared(push(pullback(shared(vector))[0]))
        return found

    return product


def _chunked(
    apply: Apply,
    params: Params,
    inputs: tuple[Inputs, Inputs],
    chunk: int,
    mesh: Mesh | None,
    precision: Precision,
) -> Callable[[Array], Array]:
    pull = partial(jacobian_transpose_vp, chunk=chunk, precision=precision)
    push = partial(jacobian_vp, chunk=chunk, precision=precision)

    def product(params: Params, x1: Inputs, x2: Inputs, vector: Array) -> Array:
        direction = pull(apply, params, x2, vector)
        if mesh is not None:
            direction = jax.lax.psum(direction, mesh.axis_names[0])
        found: Array = push(apply, params, x1, direction)
        return found

    if mesh is None:
        return partial(product, params, *inputs)
    by_rows = _ring.rows_of(mesh)
    sharing = jax.shard_map(
        product,
        mesh=mesh,
        in_specs=(_ring.WHOLE, by_rows, by_rows, by_rows),
        out_specs=by_rows,
        check_vma=False,
    )
    return partial(sharing, params, *inputs)
