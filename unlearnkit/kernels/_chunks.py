"""Sums and stacks over examples, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from unlearnkit.base import Params
from unlearnkit.kernels import _trees
from unlearnkit.kernels._trees import Inputs


def spans(n: int, chunk: int) -> list[tuple[int, int]]:
    """Returns the (start, stop) of the chunks of n examples; the last may be shorter."""
    _trees.check_positive(chunk=chunk)
    return [(start, min(start + chunk, n)) for start in range(0, n, chunk)]


def is_traced(*trees: Any) -> bool:
    """Whether any array in `trees` belongs to a trace."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def map_batches(
    function: Callable[..., Any], arguments: Any, batches: tuple[Inputs, ...], chunk: int
) -> Any:
    """Returns function(arguments, *batches) over all n examples, computed a chunk at a time.

    The whole chunks run in one loop and the rest after it, so that nothing is padded and no example
    is seen twice; `lax.map(batch_size=)` has returned wrong results on some accelerators. A chunk
    is a slice of the batches as they are: reshaped ones are copied on their way into the loop.
    A batch may be a pytree of arrays.

    Example:
      logits = kernels.map_batches(apply, params, (x,), chunk=500)  # as apply(params, x)
    """
    n = _trees.count(batches)
    _trees.check_positive(chunk=chunk)
    whole = n // chunk
    if n <= chunk:
        return function(arguments, *batches)
    out = jax.lax.map(
        lambda i: function(arguments, *_slice(batches, i * chunk, chunk)), jnp.arange(whole)
    )
    out = jax.tree.map(lambda o: o.reshape(whole * chunk, *o.shape[2:]), out)
    if whole * chunk == n:
        return out
    rest = function(arguments, *_trees.rows(batches, whole * chunk, None))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), out, rest)


def by_chunks(
    function: Callable[..., Any], arguments: Any, batches: tuple[Inputs, ...], chunk: int
) -> Any:
    """Returns what `map_batches` returns; outside a trace, by one call of `function` per chunk.

    Gradients of convolutions inside a loop's body are ~30 times slower on CPUs, so the loop stays
    on the host where it can. `function` is compiled already.

    Example:
      logits = kernels.by_chunks(jax.jit(apply), params, (x,), chunk=500)
    """
    if is_traced(arguments, batches):
        return map_batches(function, arguments, batches, chunk)
    parts = [
        function(arguments, *_trees.rows(batches, start, stop))
        for start, stop in spans(_trees.count(batches), chunk)
    ]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def sum_batches(
    function: Callable[..., Any], arguments: Any, batches: tuple[Inputs, ...], chunk: int
) -> Any:
    """Returns the sum over chunks of function(arguments, *batch); like `map_batches` else."""
    n = _trees.count(batches)
    _trees.check_positive(chunk=chunk)
    whole = n // chunk
    if n <= chunk:
        return function(arguments, *batches)
    shape = jax.eval_shape(function, arguments, *_slice(batches, 0, chunk))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)

    def add(total: Any, i: Array) -> tuple[Any, None]:
        part = function(arguments, *_slice(batches, i * chunk, chunk))
        return jax.tree.map(jnp.add, total, part), None

    total = jax.lax.scan(add, zero, jnp.arange(whole))[0]
    if whole * chunk == n:
        return total
    rest = function(arguments, *_trees.rows(batches, whole * chunk, None))
    return jax.tree.map(jnp.add, total, rest)


def mean_over_examples(
    function: Callable[..., Params], params: Params, arrays: tuple[Inputs, ...], chunk: int
) -> Params:
    """Returns the mean of function(params, *example) over the examples of `arrays`."""
    n = _trees.count(arrays)

    def total(parameters: Params, *batch: Array) -> Params:
        in_batch = (None, *(0 for _ in batch))
        values = jax.vmap(function, in_axes=in_batch)(parameters, *batch)
        return jax.tree.map(lambda v: jnp.sum(v, axis=0), values)

    return jax.tree.map(lambda s: s / n, sum_batches(total, params, arrays, chunk))


def _slice(batches: tuple[Inputs, ...], start: Array | int, size: int) -> tuple[Inputs, ...]:
    found: tuple[Inputs, ...] = jax.tree.map(
        lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), batches
    )
    return found
