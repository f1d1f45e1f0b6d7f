"""The empirical neural tangent kernel: dense by three methods, and as an operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float

from unlearnkit.base import Params
from unlearnkit.costs import available_bytes, program_flops
from unlearnkit.kernels import _chunks, _dense_layers, _ring, _trees
from unlearnkit.kernels._trees import Precision, at_precision
from unlearnkit.kernels.curvature import jacobian_transpose_vp, jacobian_vp
from unlearnkit.validation.separability import check_rows_alone

Apply = Callable[[Params, Array], Array]

CHUNK_BYTES = 2**21
"""Jacobians that are made at a time on a CPU: what its caches hold."""
HELD_BYTES = 2**30
"""Jacobians that are kept for the next row of blocks; where they are more, they are made anew."""
HELD_SHARE = 0.25
"""Of the memory that is free, which they may take where that is more."""


@at_precision
def empirical_ntk(
    apply: Apply,
    params: Params,
    x1: Any,
    x2: Any = None,
    *,
    method: str = "auto",
    chunk: int = 64,
    precision: Precision = "highest",
) -> Float[Array, "n1 c n2 c"]:
    """Returns the empirical neural tangent kernel between two sets of inputs.

    Θ[i, a, j, b] = ∇ f_a(x1_i) · ∇ f_b(x2_j),   f = apply(params, ·)

    `jacobian` contracts the Jacobians, n² c² p multiplications; `products` pushes the rows of one
    Jacobian forward, n² c forward passes and no contraction; `structured` contracts the kernels of
    dense layers by their factors, n² c² out and n² in for a kernel [in, out], and the other leaves
    as they are. `auto` counts the floating-point operations of each on one block, by XLA's own
    count, and takes the least.

    Args:
      apply: (params, x) -> [n, c], a row of its own input alone: BatchNorm in evaluation mode.
      params: where, p numbers.
      x1: [n1, ...] inputs, an array or a pytree of arrays, as a dict of tokens and a mask.
      x2: [n2, ...] inputs; x1 where None, and then half of the blocks come by symmetry.
      method: `auto`, `jacobian`, `products` or `structured`.
      chunk: inputs per block. The Jacobians [n2, c, p] of all blocks, or their factors, are kept
        where they take 1 GiB, or a quarter of the free memory, at most; else two blocks are held,
        and made once for each pair.
      precision: of the matrix products; see `Precision`.

    Returns:
      [n1, c, n2, c].

    Raises:
      ValueError: `method` is none of these, `chunk` < 1, a leaf of `params` is not real floating
        point, or `apply` does not return [n, c] or mixes its inputs (not asked under a
        transformation).

    Example:
      kernel = kernels.empirical_ntk(apply, params, x[:10], x)  # [10, c, n, c]

    Source: Novak, Sohl-Dickstein and Schoenholz 2022, Fast finite width neural tangent kernel. Of
    its structured derivatives we take those of dense layers.
    """
    _check_apply(apply, params, x1)
    _trees.check_positive(chunk=chunk)
    other = x1 if x2 is None else x2
    if method == "auto":
        method = cheapest_method(apply, params, x1, other, chunk=chunk)
    if method not in _METHODS:
        raise ValueError(f"method must be auto or one of {sorted(_METHODS)}, got {method!r}")
    left_of, right_of, contract = _METHODS[method]
    rows, columns = (_chunks.spans(_count(x), chunk) for x in (x1, other))

    def right_block(j: int) -> Any:
        return _by_pieces(right_of, apply, params, _rows_from(other, *columns[j]))

    if _bytes(jax.eval_shape(partial(right_of, apply), params, other)) <= held_bytes():
        right_block = cache(right_block)
    symmetric = x2 is None
    blocks: list[list[Array]] = []
    for i, (start, stop) in enumerate(rows):
        same = symmetric and left_of is right_of
        piece = partial(_by_pieces, left_of, apply, params)
        left = right_block(i) if same else piece(_rows_from(x1, start, stop))
        done = [blocks[j][i].transpose(2, 3, 0, 1) for j in range(i)] if symmetric else []
        for j in range(len(done), len(columns)):
            right = left if same and i == j else right_block(j)
            done.append(contract(apply, params, left, right))
        blocks.append(done)
    return jnp.concatenate([jnp.concatenate(row, axis=2) for row in blocks], axis=0)


def cheapest_method(apply: Apply, params: Params, x1: Any, x2: Any, *, chunk: int = 64) -> str:
    """Returns the method that needs the fewest floating-point operations.

    Counted by XLA on one block of `chunk` by `chunk` inputs, see `empirical_ntk`; `jacobian` where
    nothing can be counted. The answer is kept for the function and the shapes.

    Args:
      apply: (params, x) -> [n, c].
      params: where.
      x1: [n1, ...] inputs of the rows.
      x2: [n2, ...] inputs of the columns.
      chunk: inputs of a block, at most.
    """

    def shapes(tree: Any, most: int | None = None) -> Any:
        def of_leaf(leaf: Any) -> jax.ShapeDtypeStruct:
            shape = jnp.shape(leaf)
            shape = shape if most is None else (min(most, shape[0]), *shape[1:])
            return jax.ShapeDtypeStruct(shape, jnp.result_type(leaf))

        return jax.tree.map(of_leaf, tree)

    described = (shapes(params), shapes(x1, chunk), shapes(x2, chunk))
    leaves, structure = jax.tree.flatten(described)
    try:
        return _cheapest(apply, structure, tuple(leaves))
    except TypeError:  # no hash, and so nothing to keep the answer by
        return _cheapest.__wrapped__(apply, structure, tuple(leaves))


@lru_cache(maxsize=256)
def _cheapest(apply: Apply, structure: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> str:
    described = jax.tree.unflatten(structure, leaves)
    counts: dict[str, float] = {}
    for name in _METHODS:
        count = program_flops(_block, name, apply, *described)
        counts[name] = math.inf if count is None else count
    return min(counts, key=lambda name: counts[name])


@at_precision
def ntk_operator(
    apply: Apply,
    params: Params,
    x: Array,
    *,
    damping: Any,
    chunk: int | None = None,
    mesh: Mesh | None = None,
    precision: Precision = "highest",
) -> Callable[[Float[Array, "n c"]], Float[Array, "n c"]]:
    """Returns v -> Θ v + damping v for the empirical NTK Θ = J Jᵀ of `x`, no kernel stored.

    One vector-Jacobian and one Jacobian-vector product over the inputs. Build it inside the
    compiled function that uses it, with `params` and `x` as that function's arguments.

    Args:
      apply: (params, x) -> [n, c].
      params: where.
      x: [n, ...] inputs.
      damping: λ, added to the diagonal.
      chunk: where None, the network is linearised once and its activations are kept; otherwise they
        are computed anew for `chunk` inputs at a time, and memory does not grow with n.
      mesh: of one axis, whose devices take equally many successive inputs each, their activations
        and their part of the vectors; a product sums Jᵀ v over them. It is that of one device up to
        rounding. None for one device.
      precision: of the matrix products; see `Precision`.

    Returns:
      The operator on [n, c], symmetric positive semi-definite where damping >= 0.

    Raises:
      ValueError: `apply` does not return [n, c] or mixes its inputs (not asked under a
        transformation), `chunk` < 1, or a mesh cannot share the inputs evenly.

    Example:
      ntk = kernels.ntk_operator(apply, params, x, damping=0.1)  # no kernel is stored
      product = ntk(apply(params, x))  # [n, c]

    Source: Golatkar et al. 2020b, equation (10), whose kernel is of size (n c)².
    """
    _check_apply(apply, params, x)
    if mesh is not None:
        _ring.check_shares(len(x), mesh)
    if chunk is not None:
        _trees.check_positive(chunk=chunk)
        if mesh is not None:
            return _shared_operator(apply, params, x, damping, chunk, precision, mesh)
        return _chunked_operator(apply, params, x, damping, chunk, precision)

    def shared(rows: Array) -> Array:
        if mesh is None:
            return rows
        constrained: Array = jax.lax.with_sharding_constraint(
            rows, NamedSharding(mesh, _ring.rows_of(mesh))
        )
        return constrained

    inputs = shared(x)
    params = params if mesh is None else _ring.constrain_to_all(params, mesh)
    _, pushforward = jax.linearize(lambda p: apply(p, inputs), params)
    pullback = jax.linear_transpose(pushforward, params)

    def product(vector: Array) -> Array:
        rows = shared(vector)
        found: Array = pushforward(pullback(rows)[0]) + damping * rows
        return shared(found)

    return product


def _chunked_operator(
    apply: Apply, params: Params, x: Array, damping: Any, chunk: int, precision: Precision
) -> Callable[[Array], Array]:
    def product(vector: Array) -> Array:
        settings: Any = {"chunk": chunk, "precision": precision}
        direction = jacobian_transpose_vp(apply, params, x, vector, **settings)
        found: Array = jacobian_vp(apply, params, x, direction, **settings) + damping * vector
        return found

    return product


def _shared_operator(
    apply: Apply,
    params: Params,
    x: Array,
    damping: float | Array,
    chunk: int,
    precision: Precision,
    mesh: Mesh,
) -> Callable[[Array], Array]:
    rows, (name,) = _ring.rows_of(mesh), mesh.axis_names

    def share(params: Params, x: Array, vector: Array, damping: Array) -> Array:
        own = jacobian_transpose_vp(apply, params, x, vector, chunk=chunk, precision=precision)
        direction = jax.lax.psum(own, name)
        along = jacobian_vp(apply, params, x, direction, chunk=chunk, precision=precision)
        found: Array = along + damping * vector
        return found

    shared = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(_ring.WHOLE, rows, rows, _ring.WHOLE),
        out_specs=rows,
        check_vma=False,
    )

    def product(vector: Array) -> Array:
        found: Array = shared(params, x, vector, jnp.asarray(damping, vector.dtype))
        return found

    return product


def jacobian(apply: Apply, params: Params, x: Any, *, chunk: int | None = None) -> Params:
    """Returns the Jacobian of every output of every input, like `params` with [n, c] in front.

    J[i, a] = ∇ f_a(x_i), by c vector-Jacobian products an input.

    Args:
      apply: (params, x) -> [n, c], a row of its own input alone.
      params: where.
      x: [n, ...] inputs, an array or a pytree of arrays.
      chunk: inputs at a time; all where None.

    Raises:
      ValueError: a leaf of `params` is not real floating point, or `apply` mixes its inputs (not
        asked under a transformation).

    Example:
      rows = kernels.jacobian(apply, params, x)  # each leaf [n, c, ...]
    """
    _check_params(params)
    check_rows_alone(apply, params, x)

    def outputs(params: Params, one: Any) -> Array:
        return apply(params, jax.tree.map(lambda leaf: leaf[None], one))[0]

    of_batch = jax.vmap(jax.jacrev(outputs), in_axes=(None, 0))
    inputs, structure = jax.tree.flatten(x)

    def of_leaves(params: Params, *leaves: Array) -> Params:
        return of_batch(params, jax.tree.unflatten(structure, leaves))

    size = _count(x) if chunk is None else chunk
    return _chunks.map_batches(of_leaves, params, tuple(inputs), size)


def _count(x: Any) -> int:
    return int(jax.tree.leaves(x)[0].shape[0])


def _rows_from(x: Any, start: int, stop: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[start:stop], x)


def held_bytes() -> float:
    """Returns the bytes of Jacobians that `empirical_ntk` keeps for the next row of blocks."""
    return max(HELD_BYTES, HELD_SHARE * (available_bytes() or 0))


def _by_pieces(of_inputs: Callable[..., Any], apply: Apply, params: Params, x: Any) -> Any:
    """Returns of_inputs(apply, params, x); on a CPU, of as few inputs at a time as fit its cache.

    The pieces are compiled calls from the host, see `_chunks.by_chunks`; inside a trace all inputs
    are one piece.
    """
    if _chunks.is_traced(params, x) or jax.default_backend() != "cpu":
        return of_inputs(apply, params, x)
    one = _bytes(jax.eval_shape(partial(of_inputs, apply), params, _rows_from(x, 0, 1)))
    spans = _chunks.spans(_count(x), max(1, CHUNK_BYTES // one))
    parts = [of_inputs(apply, params, _rows_from(x, *span)) for span in spans]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@partial(jax.jit, static_argnums=(0, 1))
def _block(method: str, apply: Apply, params: Params, x1: Any, x2: Any) -> Array:
    left_of, right_of, contract = _METHODS[method]
    found: Array = contract(apply, params, left_of(apply, params, x1), right_of(apply, params, x2))
    return found


@partial(jax.jit, static_argnums=0)
def _jacobian(apply: Apply, params: Params, x: Any) -> list[Array]:
    leaves = jax.tree.leaves(jacobian(apply, params, x))
    return [leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves]


@partial(jax.jit, static_argnums=0)
def _contract_jacobians(apply: Apply, params: Params, left: Any, right: Any) -> Array:
    found: Array = _dense_layers.inner_products(left, right)
    return found


def _inputs(apply: Apply, params: Params, x: Any) -> Any:
    return x


@partial(jax.jit, static_argnums=0)
def _rows(apply: Apply, params: Params, x: Any) -> Params:
    return jacobian(apply, params, x)


@partial(jax.jit, static_argnums=0)
def _push_rows(apply: Apply, params: Params, x1: Any, rows: Params) -> Array:
    pushforward = jax.linearize(lambda p: apply(p, x1), params)[1]
    found: Array = jax.vmap(jax.vmap(pushforward))(rows).transpose(2, 3, 0, 1)
    return found


@partial(jax.jit, static_argnums=0)
def _factors(apply: Apply, params: Params, x: Any) -> _dense_layers.Factors:
    one = jax.tree.map(lambda leaf: leaf[0], x)
    dense = _dense_layers.dense_kernels(apply, params, one)
    return _dense_layers.factors(apply, params, x, dense)


@partial(jax.jit, static_argnums=0)
def _contract_factors(apply: Apply, params: Params, one: Any, two: Any) -> Array:
    return _dense_layers.contract(one, two)


_METHODS: dict[str, tuple[Any, Any, Any]] = {
    "jacobian": (_jacobian, _jacobian, _contract_jacobians),
    "products": (_inputs, _rows, _push_rows),
    "structured": (_factors, _factors, _contract_factors),
}


def _check_params(params: Params) -> None:
    """Raises ValueError if there is no derivative in a leaf."""
    for place, leaf in jax.tree.leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"params must be real floating point, but params{jax.tree_util.keystr(place)} is "
                f"{dtype}; close `apply` over what is not trained"
            )


def _check_apply(apply: Apply, params: Params, x: Any) -> None:
    _check_params(params)
    shape = getattr(jax.eval_shape(apply, params, _rows_from(x, 0, 1)), "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != 1:
        raise ValueError(f"apply must map x [n, ...] to [n, c], but 1 input gave {shape}")
    check_rows_alone(apply, params, x)
