"""The empirical neural tangent kernel, dense, by three methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unlearnkit.base import Params
from unlearnkit.costs import available_bytes, program_flops
from unlearnkit.kernels import _chunks, _dense_layers, _trees
from unlearnkit.kernels._outputs import (
    Apply,
    Axes,
    Flat,
    check_fits,
    check_outputs,
    check_params,
    choose_axes,
)
from unlearnkit.kernels._trees import Inputs, Precision, at_precision, count
from unlearnkit.validation.separability import check_rows_alone

CHUNK_BYTES = 2**21
"""Jacobians that are made at a time on a CPU: what its caches hold."""
PARTS = 4
"""Of a block of inputs with themselves on a CPU, whose lower parts come by symmetry."""
HELD_BYTES = 2**30
"""Jacobians that are kept for the next row of blocks; where they are more, they are made anew."""
HELD_SHARE = 0.25
"""Of the memory that is free, which they may take where that is more."""


@at_precision
def empirical_ntk(
    apply: Apply,
    params: Params,
    x1: Inputs,
    x2: Inputs = None,
    *,
    method: str = "auto",
    trace_axes: Sequence[int] = (),
    diagonal_axes: Sequence[int] = (),
    chunk: int = 64,
    precision: Precision = "highest",
) -> Float[Array, "n1 ..."]:
    """Returns the empirical neural tangent kernel between two sets of inputs.

    Θ[i, a, j, b] = ∇ f_a(x1_i) · ∇ f_b(x2_j),   f = apply(params, ·)

    Outputs may have any number of axes, which then stand in the places of a and b. Of a traced axis
    the kernel is the sum of its diagonal, Σ_a Θ[i, a, j, a]; of a diagonal axis it is the diagonal.

    `jacobian` contracts the Jacobians, n² c² p multiplications; `products` pushes the rows of one
    Jacobian forward, n² c forward passes and no contraction; `structured` contracts the kernels of
    dense layers by their factors, n² c² out and n² in for a kernel [in, out], and the other leaves
    as they are. `auto` counts the floating-point operations of each on one block, by XLA's own
    count, and takes the least.

    Args:
      apply: (params, x) -> [n, ...], a row of its own input alone: BatchNorm in evaluation mode.
      params: where, p numbers.
      x1: [n1, ...] inputs, an array or a pytree of arrays, as a dict of tokens and a mask.
      x2: [n2, ...] inputs; x1 where None, and then half of the blocks come by symmetry.
      method: `auto`, `jacobian`, `products` or `structured`; with traced or diagonal axes
        `structured` alone.
      trace_axes: axes of the outputs [n, ...], from 1 or from the end, that are summed over: a
        single number for each pair of inputs for (-1,).
      diagonal_axes: likewise, axes that both sides share.
      chunk: inputs per block. The Jacobians [n2, c, p] of all blocks, or their factors, are kept
        where they take 1 GiB, or a quarter of the free memory, at most; else two blocks are held,
        and made once for each pair.
      precision: of the matrix products; see `Precision`.

    Returns:
      [n1, c, n2, c]; with axes left out [n1, kept..., n2, kept..., diagonal...].

    Raises:
      ValueError: `method` is none of these, `chunk` < 1, a leaf of `params` is not real floating
        point, `apply` does not return one array of a row for each input or mixes its inputs (not
        asked under a transformation), an axis is not there, or the kernel does not fit in memory.

    Example:
      kernel = kernels.empirical_ntk(apply, params, x[:10], x)  # [10, c, n, c]

    Source: Novak, Sohl-Dickstein and Schoenholz 2022, Fast finite width neural tangent kernel. Of
    its structured derivatives we take those of dense layers.
    """
    outputs = check_outputs(apply, params, x1)
    _trees.check_positive(chunk=chunk)
    other = x1 if x2 is None else x2
    if method not in ("auto", *_METHODS):
        raise ValueError(f"method must be auto or one of {sorted(_METHODS)}, got {method!r}")
    axes = choose_axes(outputs, trace_axes, diagonal_axes)
    shape = _kernel_shape(axes, count(x1), count(other))
    _check_kernel_fits(shape, params)
    if axes.traced or axes.diagonal:
        if method not in ("auto", "structured"):
            raise ValueError(f"method must be auto or structured with these axes, got {method!r}")
        return _with_axes(Flat(apply), axes, params, (x1, other), chunk).reshape(shape)
    if len(outputs) != 1:
        settings: Any = {"method": method, "chunk": chunk, "precision": precision}
        return empirical_ntk(Flat(apply), params, x1, x2, **settings).reshape(shape)
    if method == "auto":
        method = cheapest_method(apply, params, x1, other, chunk=chunk)
    left_of, right_of, contract = _METHODS[method]
    rows, columns = (_chunks.spans(count(x), chunk) for x in (x1, other))

    def right_block(j: int) -> Any:
        return _by_pieces(right_of, apply, params, _trees.rows(other, *columns[j]))

    if _bytes(jax.eval_shape(partial(right_of, apply), params, other)) <= held_bytes():
        right_block = cache(right_block)
    same = x2 is None and left_of is right_of

    def row(i: int) -> Callable[[int], Array]:
        piece = partial(_by_pieces, left_of, apply, params)
        left = right_block(i) if same else piece(_trees.rows(x1, *rows[i]))

        def block(j: int) -> Array:
            found: Array
            if same and i == j:
                found = _contract_with_itself(contract, apply, params, left)
            else:
                found = contract(apply, params, left, right_block(j))
            return found

        return block

    return _of_blocks(row, len(rows), len(columns), symmetric=x2 is None)


def _of_blocks(
    row: Callable[[int], Callable[[int], Array]], rows: int, columns: int, *, symmetric: bool
) -> Array:
    """Returns a kernel [n1, c, n2, c] of its blocks; the lower ones by symmetry, if there is one.

    Args:
      row: i -> j -> the block; what a row shares is made once for it.
      rows: how many.
      columns: how many.
      symmetric: whether block (i, j) is block (j, i) with its sides exchanged.
    """
    blocks: list[list[Array]] = []
    for i in range(rows):
        block = row(i)
        done = [blocks[j][i].transpose(2, 3, 0, 1) for j in range(i)] if symmetric else []
        blocks.append([*done, *(block(j) for j in range(len(done), columns))])
    return jnp.concatenate([jnp.concatenate(done, axis=2) for done in blocks], axis=0)


def _kernel_shape(axes: Axes, n1: int, n2: int) -> tuple[int, ...]:
    kept = axes.sizes(axes.kept)
    return (n1, *kept, n2, *kept, *axes.sizes(axes.diagonal))


def _check_kernel_fits(shape: tuple[int, ...], params: Params) -> None:
    dtype = jnp.result_type(*jax.tree.leaves(params))
    remedy = "ntk_operator and cross_ntk_operator multiply by it without storing it"
    check_fits(math.prod(shape), dtype, f"the kernel {[*shape]}", remedy)


def _with_axes(
    apply: Apply, axes: Axes, params: Params, inputs: tuple[Inputs, Inputs], chunk: int
) -> Array:
    """Returns the kernel [n1, kept, n2, kept, diagonal] of a network [n, c], in blocks."""
    lefts, rights = (
        [_trees.rows(x, *span) for span in _chunks.spans(count(x), chunk)] for x in inputs
    )

    def row(i: int) -> Callable[[int], Array]:
        return lambda j: _block_with_axes(apply, axes, params, lefts[i], rights[j])

    return _of_blocks(row, len(lefts), len(rights), symmetric=False)


@partial(jax.jit, static_argnums=(0, 1))
def _block_with_axes(apply: Apply, axes: Axes, params: Params, x1: Inputs, x2: Inputs) -> Array:
    one, two = _factors(apply, params, x1), _factors(apply, params, x2)
    products = partial(jnp.einsum, "iktds,jltds->ikjld")
    pairs = [zip(one.rest, two.rest, strict=True), zip(one.slopes, two.slopes, strict=True)]
    rest, dense = ([products(axes.split(a), axes.split(b)) for a, b in pair] for pair in pairs)
    sizes = [h1 @ h2.T for h1, h2 in zip(one.inputs, two.inputs, strict=True)]
    scaled = [h[:, None, :, None, None] * g for h, g in zip(sizes, dense, strict=True)]
    found: Array = reduce(jnp.add, [*rest, *scaled])
    return found


def cheapest_method(
    apply: Apply, params: Params, x1: Inputs, x2: Inputs, *, chunk: int = 64
) -> str:
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


def jacobian(apply: Apply, params: Params, x: Inputs, *, chunk: int | None = None) -> Params:
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
    check_params(params)
    check_rows_alone(apply, params, x)

    def outputs(params: Params, one: Any) -> Array:
        return apply(params, jax.tree.map(lambda leaf: leaf[None], one))[0]

    of_batch = jax.vmap(jax.jacrev(outputs), in_axes=(None, 0))
    inputs, structure = jax.tree.flatten(x)

    def of_leaves(params: Params, *leaves: Array) -> Params:
        return of_batch(params, jax.tree.unflatten(structure, leaves))

    size = count(x) if chunk is None else chunk
    return _chunks.map_batches(of_leaves, params, tuple(inputs), size)


def held_bytes() -> float:
    """Returns the bytes of Jacobians that `empirical_ntk` keeps for the next row of blocks."""
    return max(HELD_BYTES, HELD_SHARE * (available_bytes() or 0))


def _by_pieces(of_inputs: Callable[..., Any], apply: Apply, params: Params, x: Inputs) -> Any:
    """Returns of_inputs(apply, params, x); on a CPU, of as few inputs at a time as fit its cache.

    The pieces are compiled calls from the host, see `_chunks.by_chunks`; inside a trace all inputs
    are one piece.
    """
    if _chunks.is_traced(params, x) or jax.default_backend() != "cpu":
        return of_inputs(apply, params, x)
    one = _bytes(jax.eval_shape(partial(of_inputs, apply), params, _trees.rows(x, 0, 1)))
    spans = _chunks.spans(count(x), max(1, CHUNK_BYTES // one))
    parts = [of_inputs(apply, params, _trees.rows(x, *span)) for span in spans]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@partial(jax.jit, static_argnums=(0, 1))
def _block(method: str, apply: Apply, params: Params, x1: Inputs, x2: Inputs) -> Array:
    left_of, right_of, contract = _METHODS[method]
    found: Array = contract(apply, params, left_of(apply, params, x1), right_of(apply, params, x2))
    return found


@partial(jax.jit, static_argnums=0)
def _jacobian(apply: Apply, params: Params, x: Inputs) -> list[Array]:
    leaves = jax.tree.leaves(jacobian(apply, params, x))
    return [leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves]


@partial(jax.jit, static_argnums=0)
def _contract_jacobians(apply: Apply, params: Params, left: Any, right: Any) -> Array:
    found: Array = _dense_layers.inner_products(left, right)
    return found


def _inputs(apply: Apply, params: Params, x: Inputs) -> Any:
    return x


@partial(jax.jit, static_argnums=0)
def _rows(apply: Apply, params: Params, x: Inputs) -> Params:
    return jacobian(apply, params, x)


@partial(jax.jit, static_argnums=0)
def _push_rows(apply: Apply, params: Params, x1: Inputs, rows: Params) -> Array:
    pushforward = jax.linearize(lambda p: apply(p, x1), params)[1]
    found: Array = jax.vmap(jax.vmap(pushforward))(rows).transpose(2, 3, 0, 1)
    return found


@partial(jax.jit, static_argnums=0)
def _factors(apply: Apply, params: Params, x: Inputs) -> _dense_layers.Factors:
    one = jax.tree.map(lambda leaf: leaf[0], x)
    dense = _dense_layers.dense_kernels(apply, params, one)
    return _dense_layers.factors(apply, params, x, dense)


@partial(jax.jit, static_argnums=0)
def _contract_factors(apply: Apply, params: Params, one: Any, two: Any) -> Array:
    return _dense_layers.contract(one, two)


@partial(jax.jit, static_argnums=(0, 1))
def _contract_with_itself(
    contract: Callable[..., Array],
    apply: Apply,
    params: Params,
    pieces: list[Array] | _dense_layers.Factors,
) -> Array:
    """Returns the kernel of inputs with themselves, in `PARTS` on a CPU."""
    n = count(pieces)
    spans = _chunks.spans(n, -(-n // PARTS) if jax.default_backend() == "cpu" else n)
    parts = [_trees.rows(pieces, *span) for span in spans]

    def row(i: int) -> Callable[[int], Array]:
        return lambda j: contract(apply, params, parts[i], parts[j])

    return _of_blocks(row, len(parts), len(parts), symmetric=True)


_METHODS: dict[str, tuple[Any, Any, Any]] = {
    "jacobian": (_jacobian, _jacobian, _contract_jacobians),
    "products": (_inputs, _rows, _push_rows),
    "structured": (_factors, _factors, _contract_factors),
}
