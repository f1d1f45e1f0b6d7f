"""The network around a point, in products with its Jacobian J: by passes, by J, and by Θ."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from unlearnkit import kernels
from unlearnkit.base import Model, Params, Variables
from unlearnkit.kernels import Precision
from unlearnkit.kernels.curvature import Apply
from unlearnkit.unlearning.ntk_scrub.settings import Form, NtkSettings, Size

Vector = Any
"""A vector of weights: like the parameters, or a `Dual`."""
Held = Any
"""What a form holds: blocks of J, Θ or nothing."""
CACHE_BYTES = 2**21
"""Jacobians that are made at a time on a CPU."""


class Network(NamedTuple):
    """The network around `params`, in passes over the examples."""

    apply: Callable[[Params, Array], Array]
    params: Params
    x: Array
    chunk: int
    precision: Precision

    def push(self, vector: Params) -> Float[Array, "n c"]:
        return kernels.jacobian_vp(
            self.apply, self.params, self.x, vector, chunk=self.chunk, precision=self.precision
        )

    def pull(self, cotangent: Float[Array, "n c"]) -> Params:
        return kernels.jacobian_transpose_vp(
            self.apply, self.params, self.x, cotangent, chunk=self.chunk, precision=self.precision
        )


class Space(NamedTuple):
    """Where the weights of the linearised network live.

    Attributes:
      push: v -> J v [n, c].
      pull: u [n, c] -> Jᵀ u.
      near_push, near_pull: the same for products of which a few digits matter.
      inner: the inner product of the weights; None is the Euclidean one of the vectors' numbers.
    """

    push: Callable[[Vector], Array]
    pull: Callable[[Array], Vector]
    near_push: Callable[[Vector], Array]
    near_pull: Callable[[Array], Vector]
    inner: Callable[[Vector, Vector], Array] | None = None

    def theta(self, vector: Array) -> Array:
        """Returns Θ v."""
        return self.push(self.pull(vector))

    def near_theta(self, vector: Array) -> Array:
        """Returns Θ v to a few digits."""
        return self.near_push(self.near_pull(vector))

    @property
    def is_exact(self) -> bool:
        """Whether the near products are the others."""
        return self.near_push is self.push


class Dual(NamedTuple):
    """The weights Jᵀ a + s d, with d those from the centre of the decay to the point.

    All that a solve asks of them, kept with them, so that it is linear as they are.

    Attributes:
      coefficients: a [n, c].
      share: s.
      outputs: J (Jᵀ a + s d) [n, c].
      along: d · (Jᵀ a + s d).
    """

    coefficients: Array
    share: Array
    outputs: Array
    along: Array


def of_network(network: Network) -> Space:
    """Returns the space of the parameters."""
    push, pull = network.push, network.pull  # a method is another object each time
    return Space(push, pull, push, pull)


def of_jacobian(blocks: tuple[Array, ...], network: Network) -> Space:
    """Returns the space of the parameters, with products by the stored J.

    Args:
      blocks: J in blocks [m, c, p] of successive examples; where they are bfloat16, the exact
        products are those of the network.
      network: around the same point.
    """
    _, unravel = ravel_pytree(network.params)
    sizes = [len(block) for block in blocks]
    starts = [sum(sizes[:i]) for i in range(1, len(sizes))]

    def push(vector: Params) -> Array:
        flat = ravel_pytree(vector)[0]
        return jnp.concatenate([block.astype(flat.dtype) @ flat for block in blocks])

    def pull(cotangent: Array) -> Params:
        parts = zip(jnp.split(cotangent, starts), blocks, strict=True)
        rows = [jnp.tensordot(u, block.astype(u.dtype), axes=2) for u, block in parts]
        return unravel(sum(rows[1:], rows[0]))

    if blocks[0].dtype == jnp.bfloat16:
        return Space(network.push, network.pull, push, pull)
    return Space(push, pull, push, pull)


def of_kernel(theta: Float[Array, "nc nc"], outputs: Array, square: Array) -> Space:
    """Returns the space of `Dual` vectors, in which no product needs the network.

    Args:
      theta: Θ.
      outputs: J d [n, c].
      square: ‖d‖².
    """

    def push(vector: Dual) -> Array:
        return vector.outputs

    def pull(cotangent: Array) -> Dual:
        pushed = (theta @ cotangent.reshape(-1)).reshape(cotangent.shape)
        nothing = jnp.zeros((), theta.dtype)
        return Dual(cotangent, nothing, pushed, jnp.vdot(outputs, cotangent))

    def inner(one: Dual, other: Dual) -> Array:
        of_rows = jnp.vdot(one.coefficients, other.outputs, precision="highest")
        return of_rows + one.share * other.along

    return Space(push, pull, push, pull, inner)


def hold(form: Form, settings: NtkSettings, model: Model, point: Variables, x: Array) -> Held:
    """Returns what a form holds: J in blocks, Θ [n c, n c], or None.

    By compiled calls from the host: gradients of convolutions are slow in a loop that is compiled.

    Args:
      form: which.
      settings: how J is stored, and the precision.
      model: the network.
      point: its weights and state, at which it is linearised.
      x: inputs [n, ...].
    """
    if form.name == "matrix_free":
        return None
    apply, params = differentiable(model, point)
    outputs = jax.eval_shape(apply, params, x).shape[1]
    size = size_of(params, len(x), outputs)
    if form.name == "stored":
        dtype = jnp.bfloat16 if form.store == "bfloat16" else None
        return _jacobian_blocks(apply, params, x, size.block, dtype, settings.precision)
    theta = kernels.empirical_ntk(apply, params, x, chunk=size.block, precision=settings.precision)
    return theta.reshape(len(x) * outputs, -1)


def size_of(params: Params, examples: int, outputs: int) -> Size:
    """Returns the size of the problem of so many examples.

    Args:
      params: of the network.
      examples: N.
      outputs: c.
    """
    leaves = jax.tree.leaves(params)
    weights = sum(leaf.size for leaf in leaves)
    return Size(examples, outputs, weights, jnp.result_type(*leaves).itemsize)


def differentiable(model: Model, point: Variables) -> tuple[Callable[..., Array], Any]:
    """Returns (apply, params) of the network in evaluation mode, one `apply` for each model.

    So that what is compiled for it serves other weights too. The state is among the params, where
    its derivative is zero, unless it holds anything but real numbers.
    """
    leaves = jax.tree.leaves(point.state)
    if all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        return _with_state(model), (point.params, point.state)
    return (lambda p, x: model.apply(Variables(p[0], point.state), x)), (point.params, ())


@lru_cache(maxsize=64)
def _with_state(model: Model) -> Callable[..., Array]:
    def apply(params: tuple[Params, Any], x: Array) -> Array:
        found: Array = model.apply(Variables(params[0], jax.lax.stop_gradient(params[1])), x)
        return found

    return apply


def _jacobian_blocks(
    apply: Apply,
    params: Params,
    x: Array,
    block: int,
    dtype: DTypeLike | None,
    precision: Precision,
) -> tuple[Array, ...]:
    with jax.default_matmul_precision(precision):
        rows = partial(_jacobian_rows, apply, dtype)
        one = jax.eval_shape(rows, params, x[:1])
        # On a CPU as many at a time as its caches hold.
        fitting = CACHE_BYTES // (one.size * one.dtype.itemsize)
        piece = max(1, fitting) if jax.default_backend() == "cpu" else block
        return tuple(
            kernels.by_chunks(rows, params, (x[start : start + block],), piece)
            for start in range(0, len(x), block)
        )


@partial(jax.jit, static_argnums=(0, 1))
def _jacobian_rows(
    apply: Apply, dtype: DTypeLike | None, params: Params, x: Array
) -> Float[Array, "m c p"]:
    """Returns J of some examples, without the columns of the state."""
    leaves = jax.tree.leaves(kernels.jacobian(apply, params, x)[0])
    rows = jnp.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=-1)
    return rows if dtype is None else rows.astype(dtype)


def sketch_of(
    key: Key[Array, ""], blocks: tuple[Array, ...], rank: int, dtype: DTypeLike
) -> Float[Array, "nc rank"]:
    """Returns J S of the stored J, S that of `kernels.sketched_ntk` with the same key.

    Args:
      key: of the signs.
      blocks: J, see `of_jacobian`.
      rank: columns, at most p.
      dtype: of the result.
    """
    size = blocks[0].shape[-1]
    rank = min(rank, size)
    signs = jax.random.rademacher(key, (size,), dtype)

    def of_block(rows: Array) -> Array:
        signed = jnp.pad(rows.astype(dtype) * signs, ((0, 0), (0, 0), (0, -size % rank)))
        return signed.reshape(-1, signed.shape[-1] // rank, rank).sum(axis=1)

    return jnp.concatenate([of_block(block) for block in blocks])
