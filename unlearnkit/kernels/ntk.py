"""The empirical neural tangent kernel: dense by two methods, and as an operator without storage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unlearnkit.base import Params
from unlearnkit.kernels import _chunks, _trees
from unlearnkit.kernels._trees import highest_precision

Apply = Callable[[Params, Array], Array]


@highest_precision
def empirical_ntk(
    apply: Apply,
    params: Params,
    x1: Array,
    x2: Array | None = None,
    *,
    method: str = "auto",
    chunk: int = 32,
) -> Float[Array, "n1 c n2 c"]:
    """Returns the empirical neural tangent kernel between two sets of inputs.

    Θ[i, a, j, b] = ∇ f_a(x1_i) · ∇ f_b(x2_j),   f = apply(params, ·)

    `jacobian` contracts the Jacobians, n² c² p multiplications; `products` pushes the rows of one
    Jacobian forward, n² c forward passes and no contraction. `auto` counts the floating-point
    operations of both on one block, by XLA's own count, and takes the lesser.

    Args:
      apply: (params, x) -> [n, c], a row of its own input alone: BatchNorm in evaluation mode.
      params: where, p numbers.
      x1: [n1, ...] inputs.
      x2: [n2, ...] inputs; x1 where None, and then half of the blocks come by symmetry.
      method: `auto`, `jacobian` or `products`.
      chunk: inputs a block; two Jacobians [chunk, c, p] are held at a time (one for `products`).

    Returns:
      [n1, c, n2, c].

    Raises:
      ValueError: `method` is none of these, `chunk` < 1, or `apply` does not return [n, c].

    Source: Novak, Sohl-Dickstein and Schoenholz 2022, Fast finite width neural tangent kernel.
    """
    _check_apply(apply, params, x1)
    _trees.check_positive(chunk=chunk)
    other = x1 if x2 is None else x2
    if method == "auto":
        method = cheaper_method(apply, params, x1, other, chunk=chunk)
    if method not in _BLOCKS:
        raise ValueError(f"method must be auto, jacobian or products, got {method!r}")
    block = _BLOCKS[method]
    rows, columns = _chunks.spans(len(x1), chunk), _chunks.spans(len(other), chunk)
    blocks: list[list[Array]] = []
    for i, (start, stop) in enumerate(rows):
        mirrored = [blocks[j][i].transpose(2, 3, 0, 1) for j in range(i)] if x2 is None else []
        here = x1[start:stop]
        blocks.append(
            mirrored + [block(apply, params, here, other[a:b]) for a, b in columns[len(mirrored) :]]
        )
    return jnp.concatenate([jnp.concatenate(row, axis=2) for row in blocks], axis=0)


def cheaper_method(apply: Apply, params: Params, x1: Array, x2: Array, *, chunk: int = 32) -> str:
    """Returns `jacobian` or `products`, whichever needs fewer floating-point operations.

    Counted by XLA on one block of `chunk` by `chunk` inputs; see `empirical_ntk`.
    """
    shapes = [jax.ShapeDtypeStruct((min(chunk, len(x)), *x.shape[1:]), x.dtype) for x in (x1, x2)]
    abstract = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(jnp.shape(p), jnp.result_type(p)), params
    )
    counts = {
        name: block.lower(apply, abstract, *shapes).cost_analysis()["flops"]
        for name, block in _BLOCKS.items()
    }
    return min(counts, key=lambda name: counts[name])


@highest_precision
def ntk_operator(
    apply: Apply, params: Params, x: Array, *, damping: Any, chunk: int | None = None
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

    Returns:
      The operator on [n, c], symmetric positive semi-definite where damping >= 0.

    Raises:
      ValueError: `apply` does not return [n, c], or `chunk` < 1.

    Source: paper 004, equation (10), whose kernel is of size (n c)².
    """
    _check_apply(apply, params, x)
    if chunk is not None:
        _trees.check_positive(chunk=chunk)
        return _chunked_operator(apply, params, x, damping, chunk)
    _, pushforward = jax.linearize(lambda p: apply(p, x), params)
    pullback = jax.linear_transpose(pushforward, params)

    def product(vector: Array) -> Array:
        return pushforward(pullback(vector)[0]) + damping * vector

    return product


def _chunked_operator(
    apply: Apply, params: Params, x: Array, damping: Any, chunk: int
) -> Callable[[Array], Array]:
    def pull(parameters: Params, inputs: Array, vector: Array) -> Params:
        return jax.vjp(lambda p: apply(p, inputs), parameters)[1](vector)[0]

    def push(point: tuple[Params, Params], inputs: Array) -> Array:
        parameters, direction = point
        return jax.jvp(lambda p: apply(p, inputs), (parameters,), (direction,))[1]

    @highest_precision
    def product(vector: Array) -> Array:
        direction = _chunks.sum_batches(pull, params, (x, vector), chunk)
        return _chunks.map_batches(push, (params, direction), (x,), chunk) + damping * vector

    return product


def jacobian(apply: Apply, params: Params, x: Array) -> Params:
    """Returns the Jacobian of every output of every input, like `params` with [n, c] in front.

    J[i, a] = ∇ f_a(x_i), by c vector-Jacobian products an input.

    Args:
      apply: (params, x) -> [n, c].
      params: where.
      x: [n, ...] inputs.
    """
    return jax.vmap(jax.jacrev(lambda p, one: apply(p, one[None])[0]), in_axes=(None, 0))(params, x)


@partial(jax.jit, static_argnums=0)
def _jacobian_block(apply: Apply, params: Params, x1: Array, x2: Array) -> Array:
    j1, j2 = jacobian(apply, params, x1), jacobian(apply, params, x2)
    n1, n2 = len(x1), len(x2)
    total: Any = 0
    for a, b in zip(jax.tree.leaves(j1), jax.tree.leaves(j2), strict=True):
        c = a.shape[1]
        product = a.reshape(n1 * c, -1) @ b.reshape(n2 * c, -1).T
        total = total + product.reshape(n1, c, n2, c)
    return total


@partial(jax.jit, static_argnums=0)
def _products_block(apply: Apply, params: Params, x1: Array, x2: Array) -> Array:
    pushforward = jax.linearize(lambda p: apply(p, x1), params)[1]
    columns = jax.vmap(jax.vmap(pushforward))(jacobian(apply, params, x2))
    return columns.transpose(2, 3, 0, 1)


_BLOCKS: dict[str, Any] = {"jacobian": _jacobian_block, "products": _products_block}


def _check_apply(apply: Apply, params: Params, x: Array) -> None:
    shape = jax.eval_shape(apply, params, x[:1]).shape
    if len(shape) != 2 or shape[0] != 1:
        raise ValueError(f"apply must map x [n, ...] to [n, c], but 1 input gave {shape}")
