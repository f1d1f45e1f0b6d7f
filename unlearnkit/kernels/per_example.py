"""Per-example gradients: stored (`gradient_bank`), on demand (`GradientOperator`), Gram.

A loss that mixes its examples, as BatchNorm in training mode does, has no such gradients and is
refused, by a probe that needs values: under `jax.jit` and other transformations it is skipped, and
`unlearnkit.validation.separability.check_mean_of_examples` outside of them stands for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jaxtyping import Array, Float

from unlearnkit.base import Dataset, Params
from unlearnkit.kernels import _chunks, _dense_layers, _ring, _trees
from unlearnkit.kernels._trees import Precision, at_precision
from unlearnkit.validation.separability import check_mean_of_examples

BatchLoss: TypeAlias = Callable[[Params, Array, Array], Array]


CHUNK_BYTES = 2**23
"""Rows of the bank that are made at a time on a CPU: what its caches hold."""
BLOCK_BYTES = 2**28
"""Pieces of rows that `gram` holds at a time, twice."""


@at_precision
def gradient_bank(
    loss: BatchLoss,
    params: Params,
    dataset: Dataset,
    *,
    chunk: int | None = None,
    mesh: Mesh | None = None,
    precision: Precision = "highest",
) -> Float[Array, "n p"]:
    """Returns the gradient of the loss at every example, one per row.

    G[i] = ∇ loss(params, x_i, y_i), raveled as `jax.flatten_util.ravel_pytree` does.

    Args:
      loss: (params, x [m, ...], y [m]) -> the mean loss of a batch.
      params: where, p numbers.
      dataset: n examples.
      chunk: examples at a time; bounds the memory besides the bank, does not change the rows. Where
        None, as many as make 8 MiB of rows on a CPU, whose caches hold them, and 32 times as many
        elsewhere.
      mesh: of one axis, whose devices make and hold equally many successive rows each, up to
        rounding those of one device; None for one device.
      precision: of the matrix products; see `Precision`.

    Returns:
      [n, p]. Where it does not fit, see `GradientOperator`.

    Raises:
      ValueError: `chunk` < 1, a mesh that cannot share the rows evenly, or the loss is not a
        scalar, or mixes its examples (not asked under a transformation; see
        `unlearnkit.validation.separability`).

    Example:
      gradients = kernels.gradient_bank(loss, params, dataset)  # [n, p]
    """
    _check(loss, params, dataset)
    chunk = _default_chunk(params) if chunk is None else chunk
    if mesh is not None:
        _trees.check_positive(chunk=chunk)
        _ring.check_shares(dataset.size, mesh)
        x, y = _ring.share_rows((dataset.x, dataset.y), mesh)
        params = _ring.copy_to_all(params, mesh)
        shared: Array = _shared_bank(loss, chunk, mesh, params, x, y)
        return shared
    if _chunks.is_traced(params, dataset):
        rows = partial(_rows, loss)
        found: Array = _chunks.map_batches(rows, params, (dataset.x, dataset.y), chunk)
        return found
    # On the host a chunk is one compiled call that writes into the bank in place: gradients of
    # convolutions inside a loop's body are ~30 times slower on CPUs.
    bank = jnp.empty((dataset.size, _size(params)), _dtype(params))
    for start, stop in _chunks.spans(dataset.size, chunk):
        bank = _write(loss, bank, params, dataset.x[start:stop], dataset.y[start:stop], start)
    return bank


class Projections(NamedTuple):
    """Rows of G, seen by what they have in common with some directions.

    The size is kept apart: squares of tiny gradients, as a confident network has, would vanish.

    Attributes:
      products: G V / size.
      squares: of the rows' norms, / size².
      size: s, about the largest entry of these rows.
    """

    products: Float[Array, "m k"]
    squares: Float[Array, " m"]
    size: Float[Array, ""]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "dataset"],
    meta_fields=["loss", "chunk"],
)
@dataclasses.dataclass(frozen=True)
class GradientOperator:
    """The matrix G [n, p] of per-example gradients, computed on demand.

    Attributes:
      loss: (params, x [m, ...], y [m]) -> the mean loss of a batch.
      params: where, p numbers.
      dataset: n examples.
      chunk: examples at a time.

    Raises:
      ValueError: the loss mixes its examples (not asked under a transformation).

    Example:
      gradients = kernels.GradientOperator(loss, params, dataset, chunk=64)
      first = gradients.rows(0, 10)  # [10, p]
    """

    loss: BatchLoss
    params: Params
    dataset: Dataset
    chunk: int = 128

    def __post_init__(self) -> None:
        if hasattr(self.dataset, "x"):  # not so where JAX rebuilds the pytree around other leaves
            check_mean_of_examples(self.loss, self.params, self.dataset.x, self.dataset.y)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, p)."""
        return self.dataset.size, _size(self.params)

    def rows(
        self, start: int, stop: int, *, precision: Precision = "highest"
    ) -> Float[Array, "m p"]:
        """Returns G[start:stop].

        Args:
          start: the first row.
          stop: one past the last.
          precision: of the matrix products; see `Precision`.
        """
        part = jax.tree.map(lambda array: array[start:stop], self.dataset)
        return gradient_bank(self.loss, self.params, part, chunk=self.chunk, precision=precision)

    @at_precision
    def factors(
        self, start: int, stop: int, *, precision: Precision = "highest"
    ) -> _dense_layers.Factors:
        """Returns G[start:stop] in pieces: dense layers' rows as h ⊗ g, the other leaves' whole.

        Args:
          start: the first row.
          stop: one past the last.
          precision: of the matrix products; see `Precision`.
        """
        batches = (self.dataset.x[start:stop], self.dataset.y[start:stop])
        found: _dense_layers.Factors = _chunks.by_chunks(
            partial(_factors, self.loss), self.params, batches, self.chunk
        )
        return found

    @at_precision
    def project(
        self,
        pieces: _dense_layers.Factors,
        vector: Float[Array, " p"],
        *,
        precision: Precision = "highest",
    ) -> Float[Array, " m"]:
        """Returns G[start:stop] v from the pieces of these rows.

        Args:
          pieces: of `factors(start, stop)`.
          vector: v.
          precision: of the matrix products; see `Precision`.
        """
        one = jax.tree.map(lambda array: array[:1], self.dataset)
        found: Array = _project(self.loss, self.params, one.x, one.y, pieces, vector)
        return found

    @at_precision
    def matvec(
        self, vector: Float[Array, " p"], *, precision: Precision = "highest"
    ) -> Float[Array, " n"]:
        """Returns G v: the derivative of every example's loss along v, one forward-mode pass."""
        tangent = ravel_pytree(self.params)[1](vector)

        def along(point: Any, x: Array, y: Array) -> Array:
            params, direction = point
            losses = lambda p: _losses(self.loss, p, x, y)  # noqa: E731
            found: Array = jax.jvp(losses, (params,), (direction,))[1]
            return found

        point = (self.params, tangent)
        found: Array = _chunks.map_batches(
            along, point, (self.dataset.x, self.dataset.y), self.chunk
        )
        return found

    @at_precision
    def matmat(
        self,
        start: int,
        stop: int,
        matrix: Float[Array, "p k"],
        *,
        precision: Precision = "highest",
    ) -> Projections:
        """Returns products of the rows G[start:stop] with V and their norms, forming none of them.

        (h ⊗ g)·V = hᵀ V g and ‖h ⊗ g‖² = ‖h‖² ‖g‖² for what a dense kernel adds to both: 2 p k
        operations an example, and the memory of k outputs of a layer in the place of p.

        Args:
          start: the first row.
          stop: one past the last.
          matrix: V.
          precision: of the matrix products; see `Precision`.
        """
        x, y = self.dataset.x[start:stop], self.dataset.y[start:stop]
        found: Projections = _matmat(self.loss, self.params, x, y, matrix)
        return found

    @at_precision
    def rmatvec(
        self, weights: Float[Array, " n"], *, precision: Precision = "highest"
    ) -> Float[Array, " p"]:
        """Returns Gᵀ u: the gradient of the losses' sum weighted by u, one reverse-mode pass."""

        def weighted(params: Params, x: Array, y: Array, u: Array) -> Params:
            return jax.grad(lambda p: u @ _losses(self.loss, p, x, y))(params)

        batches = (self.dataset.x, self.dataset.y, weights)
        return ravel_pytree(_chunks.sum_batches(weighted, self.params, batches, self.chunk))[0]


@at_precision
def gram(
    gradients: Float[Array, "n p"] | GradientOperator,
    *,
    centre: Float[Array, " p"] | None = None,
    chunk: int | None = None,
    mesh: Mesh | None = None,
    precision: Precision = "highest",
) -> Float[Array, "n n"]:
    """Returns the Gram matrix of per-example gradients, or of their differences from a `centre` c.

    K[i, j] = G[i]·G[j], or (G[i] - c)·(G[j] - c) = G[i]·G[j] - G[i]·c - G[j]·c + c·c, computed a
    block at a time and once for each pair of blocks.

    An operator's rows are never formed where they are factors: the gradient of a dense kernel
    [in, out] at one example is h ⊗ g, and (h ⊗ g)·(h' ⊗ g') = (h·h')(g·g') takes in + out
    multiplications in place of in x out. For LeNet that is a tenth of the arithmetic.

    Args:
      gradients: the bank [n, p], or an operator, of which the pieces of two blocks of rows are held
        at a time; with several blocks they are computed about n / (2 chunk) times.
      centre: what is subtracted from every row, as the gradient of another batch.
      chunk: rows per block; where None, 1,024 for a bank and what 256 MiB hold for an operator.
      mesh: of one axis, whose devices make and hold equally many successive rows of K each; the
        rows of the bank, or their factors, go around them, so that a device holds two shares at a
        time. K is that of one device up to rounding. None for one device; `chunk` is not used with
        several.
      precision: of the matrix products; see `Precision`.

    Returns:
      [n, n], symmetric.

    Raises:
      ValueError: `chunk` < 1, a centre of another length than a row, or a mesh that cannot share
        the rows evenly.

    Example:
      gradients = kernels.GradientOperator(loss, params, dataset)  # [n, p], never stored
      products = kernels.gram(gradients)  # [n, n]
    """
    if centre is not None and centre.shape != (gradients.shape[1],):
        raise ValueError(
            f"centre must be a row [{gradients.shape[1]}], got {list(centre.shape)}; "
            "ravel a pytree by jax.flatten_util.ravel_pytree"
        )
    if mesh is not None:
        return _shared_gram(gradients, centre, mesh, precision)
    pieces: Callable[[int, int], Any]
    project: Any
    if isinstance(gradients, GradientOperator):
        pieces = partial(gradients.factors, precision=precision)
        project = partial(gradients.project, precision=precision)
        products, size = _factor_products, _default_block(gradients)
    else:
        pieces, products, size = (lambda start, stop: gradients[start:stop]), _products, 1024
        project = _along
    spans = _chunks.spans(gradients.shape[0], size if chunk is None else chunk)
    blocks: list[list[Array]] = [[] for _ in spans]
    parts = []
    for i, span in enumerate(spans):
        left = pieces(*span)
        if centre is not None:
            parts.append(project(left, centre))
        blocks[i] += [blocks[j][i].T for j in range(i)]
        own = products(left, left)
        blocks[i].append((own + own.T) / 2)  # exactly symmetric, whatever the order of its sums
        blocks[i] += [products(left, pieces(*other)) for other in spans[i + 1 :]]
    return jnp.block(blocks) if centre is None else _centre(jnp.block(blocks), parts, centre)


def _shared_gram(
    gradients: Array | GradientOperator, centre: Array | None, mesh: Mesh, precision: Precision
) -> Float[Array, "n n"]:
    """Returns the Gram matrix, its rows shared out over the devices of a mesh."""
    _ring.check_shares(gradients.shape[0], mesh)
    if isinstance(gradients, GradientOperator):
        x, y = _ring.share_rows((gradients.dataset.x, gradients.dataset.y), mesh)
        params = _ring.copy_to_all(gradients.params, mesh)
        products = _factors_around(gradients.loss, mesh, params, x, y)
        along = None if centre is None else gradients.matvec(centre, precision=precision)
    else:
        rows = _ring.share_rows(gradients, mesh)
        products = _rows_around(mesh, rows)
        along = None if centre is None else _along(rows, _ring.copy_to_all(centre, mesh))
    if along is None:
        whole: Array = products
        return whole
    own, other = _ring.share_rows(along, mesh), _ring.copy_to_all((along, centre), mesh)
    found: Array = _centre_rows(products, own, *other)
    return found


@partial(jax.jit, static_argnums=(0, 1, 2))
def _shared_bank(
    loss: BatchLoss, chunk: int, mesh: Mesh, params: Params, x: Array, y: Array
) -> Array:
    rows = _ring.rows_of(mesh)

    def share(params: Params, x: Array, y: Array) -> Array:
        found: Array = _chunks.map_batches(partial(_rows, loss), params, (x, y), chunk)
        return found

    shared = jax.shard_map(
        share, mesh=mesh, in_specs=(_ring.WHOLE, rows, rows), out_specs=rows, check_vma=False
    )
    bank: Array = shared(params, x, y)
    return bank


@partial(jax.jit, static_argnums=0)
def _rows_around(mesh: Mesh, rows: Array) -> Array:
    spec = _ring.rows_of(mesh)

    def share(rows: Array) -> Array:
        return _ring.products_around(_products, rows, rows, mesh, axis=1)

    products = jax.shard_map(share, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)(rows)
    return (products + products.T) / 2


@partial(jax.jit, static_argnums=(0, 1))
def _factors_around(loss: BatchLoss, mesh: Mesh, params: Params, x: Array, y: Array) -> Array:
    rows = _ring.rows_of(mesh)

    def share(params: Params, x: Array, y: Array) -> Array:
        factors = _factors(loss, params, x, y)
        return _ring.products_around(_factor_products, factors, factors, mesh, axis=1)

    products = jax.shard_map(
        share, mesh=mesh, in_specs=(_ring.WHOLE, rows, rows), out_specs=rows, check_vma=False
    )(params, x, y)
    return (products + products.T) / 2


@jax.jit
def _centre_rows(products: Array, own: Array, along: Array, centre: Array) -> Array:
    return products - (own[:, None] + along) + jnp.vdot(centre, centre, precision="highest")


@jax.jit
def _centre(products: Array, parts: list[Array], centre: Array) -> Array:
    along = jnp.concatenate(parts)
    return products - (along[:, None] + along) + jnp.vdot(centre, centre, precision="highest")


@jax.jit
def _along(rows: Array, direction: Array) -> Array:
    return rows @ direction


@jax.jit
def _products(left: Array, right: Array) -> Array:
    return left @ right.T


@jax.jit
def _factor_products(left: _dense_layers.Factors, right: _dense_layers.Factors) -> Array:
    return _dense_layers.contract(left, right)[:, 0, :, 0]


@partial(jax.jit, static_argnums=0)
def _factors(loss: BatchLoss, params: Params, x: Array, y: Array) -> _dense_layers.Factors:
    apply = _scalar(loss)
    dense = _dense_layers.dense_kernels(apply, params, (x[0], y[0]))
    return _dense_layers.factors(apply, params, (x, y), dense)


def _scalar(loss: BatchLoss) -> _dense_layers.Apply:
    def apply(parameters: Params, batch: tuple[Array, Array]) -> Array:
        return loss(parameters, *batch).reshape(1, 1)

    return apply


@partial(jax.jit, static_argnums=0)
def _project(
    loss: BatchLoss, params: Params, x: Array, y: Array, pieces: Any, vector: Array
) -> Array:
    direction = jax.tree.leaves(ravel_pytree(params)[1](vector))
    dense = _dense_layers.dense_kernels(_scalar(loss), params, (x[0], y[0]))
    return _dense_layers.along(pieces, direction, dense)[:, 0]


@partial(jax.jit, static_argnums=0)
def _matmat(loss: BatchLoss, params: Params, x: Array, y: Array, matrix: Array) -> Projections:
    apply = _scalar(loss)
    dense = _dense_layers.dense_kernels(apply, params, (x[0], y[0]))
    pieces = _dense_layers.factors(apply, params, (x, y), dense)
    pieces, size = _dense_layers.scaled(pieces)
    directions = jax.vmap(ravel_pytree(params)[1], in_axes=1)(matrix)
    leaves = jax.tree.leaves(directions)
    along = jax.vmap(lambda *one: _dense_layers.along(pieces, one, dense)[:, 0])(*leaves)
    return Projections(along.T, _dense_layers.squares(pieces)[:, 0], size)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _write(loss: BatchLoss, bank: Array, params: Params, x: Array, y: Array, start: Any) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(bank, _rows(loss, params, x, y), start, axis=0)


def _rows(loss: BatchLoss, params: Params, x: Array, y: Array) -> Array:
    def gradient(example: Array, label: Array) -> Params:
        return jax.grad(loss)(params, example[None], label[None])

    gradients = jax.vmap(gradient)(x, y)
    leaves = [leaf.reshape(x.shape[0], -1) for leaf in jax.tree.leaves(gradients)]
    return jnp.concatenate(leaves, axis=1)


def _losses(loss: BatchLoss, params: Params, x: Array, y: Array) -> Array:
    return jax.vmap(lambda example, label: loss(params, example[None], label[None]))(x, y)


def _default_chunk(params: Params) -> int:
    rows = CHUNK_BYTES // (_size(params) * _dtype(params).itemsize)
    return int(np.clip(rows, 8, 256)) * (1 if jax.default_backend() == "cpu" else 32)


def _default_block(gradients: GradientOperator) -> int:
    one = jax.tree.map(lambda array: array[:1], gradients.dataset)
    pieces = jax.eval_shape(partial(_factors, gradients.loss), gradients.params, one.x, one.y)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pieces))
    found: int = max(1, BLOCK_BYTES // size)
    return found


def _size(params: Params) -> int:
    return sum(int(np.prod(jnp.shape(leaf))) for leaf in jax.tree.leaves(params))


def _dtype(params: Params) -> Any:
    return jnp.result_type(*jax.tree.leaves(params))


def _check(loss: BatchLoss, params: Params, dataset: Dataset) -> None:
    if dataset.x.shape[0] != dataset.y.shape[0]:
        raise ValueError(
            f"x and y must hold the same examples, got {dataset.x.shape[0]} and "
            f"{dataset.y.shape[0]}"
        )
    _trees.check_scalar("loss", loss, params, dataset.x[:1], dataset.y[:1])
    check_mean_of_examples(loss, params, dataset.x, dataset.y)
