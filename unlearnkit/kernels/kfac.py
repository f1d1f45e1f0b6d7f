"""Kronecker-factored curvature (K-FAC): a Gauss-Newton matrix that is inverted layer by layer.

The Gauss-Newton matrix of a layer y = a W + b is a sum over examples of (a aᵀ) ⊗ (g gᵀ), with
g the derivatives of the outputs in y times a root of the loss's Hessian. K-FAC takes the product of
the means, A ⊗ G, in the place of the mean of the products, and leaves out what is between layers.
Then (A ⊗ G)⁻¹ = A⁻¹ ⊗ G⁻¹: two matrices of the size of a layer's input and of its output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jaxtyping import Array, Float

from unlearnkit.base import Params
from unlearnkit.kernels import _chunks
from unlearnkit.kernels._dense_layers import program_of
from unlearnkit.kernels._kronecker_layers import Apply, Layout, Watch, find_layers, run_watched
from unlearnkit.kernels._trees import Precision, at_precision
from unlearnkit.kernels.curvature import OutputHessian, cross_entropy_hessian
from unlearnkit.validation.separability import check_rows_alone

R = TypeVar("R")


class KroneckerFactors(NamedTuple):
    """The factors of a Gauss-Newton matrix; a pytree of arrays, to be kept while weights move.

    Attributes:
      layout: which leaves of the parameters each is of.
      inputs: for each layer A [in, in], with a row for the bias where it has one.
      outputs: for each layer G [out, out].
      blocks: for each leaf of no layer, its own block [size, size], which is exact.
    """

    layout: Layout
    inputs: tuple[Float[Array, "i i"], ...]
    outputs: tuple[Float[Array, "o o"], ...]
    blocks: tuple[Float[Array, "s s"], ...]


class KfacInverse(NamedTuple):
    """An approximate inverse of a damped Gauss-Newton matrix, callable.

    Attributes:
      layout: as of the factors.
      layers: for each layer what its system is solved by.
      blocks: for each other leaf the Cholesky factor of its damped block.
    """

    layout: Layout
    layers: tuple[_Factored | Diagonalised, ...]
    blocks: tuple[Float[Array, "s s"], ...]

    @at_precision
    def __call__(self, vector: Params, *, precision: Precision = "highest") -> Params:
        """Returns the inverse times `vector`, like it, at a precision of the matrix products."""
        blocks = [partial(jax.scipy.linalg.cho_solve, (lower, True)) for lower in self.blocks]
        return by_layers(self.layout, vector, [layer.solve for layer in self.layers], blocks)


def by_layers(
    layout: Layout,
    vector: Params,
    layers: Sequence[Callable[[Array], Array]],
    blocks: Sequence[Callable[[Array], Array]],
) -> Params:
    """Returns the product of a block-diagonal matrix with a vector.

    Args:
      layout: which leaves belong to each block.
      vector: like the parameters.
      layers: for each layer, of its kernel with the bias as a last row [in, out].
      blocks: for each other leaf, of it as a row.
    """
    leaves, structure = jax.tree.flatten(vector)
    found = list(leaves)
    for (kernel, bias), layer in zip(layout.layers, layers, strict=True):
        rows = leaves[kernel].reshape(-1, leaves[kernel].shape[-1])
        joint = rows if bias is None else jnp.concatenate([rows, leaves[bias][None]])
        product = layer(joint)
        found[kernel] = product[: len(rows)].reshape(leaves[kernel].shape)
        if bias is not None:
            found[bias] = product[-1]
    for i, block in zip(layout.others, blocks, strict=True):
        found[i] = block(leaves[i].reshape(-1)).reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, found)


class _Factored(NamedTuple):
    """Cholesky factors of A + π √λ I and G + √λ / π I."""

    inputs: Float[Array, "i i"]
    outputs: Float[Array, "o o"]

    def solve(self, v: Float[Array, "i o"]) -> Float[Array, "i o"]:
        left = jax.scipy.linalg.cho_solve((self.inputs, True), v)
        found: Array = jax.scipy.linalg.cho_solve((self.outputs, True), left.T).T
        return found


class Diagonalised(NamedTuple):
    """A layer's matrix by eigenvectors of its two sides, and the eigenvalue of each pair."""

    inputs: Float[Array, "i i"]
    outputs: Float[Array, "o o"]
    values: Float[Array, "i o"]

    def solve(self, v: Float[Array, "i o"]) -> Float[Array, "i o"]:
        """Returns the quotient by the matrix."""
        inside = self.inputs.T @ v @ self.outputs / self.values
        return self.inputs @ inside @ self.outputs.T

    def multiply(self, v: Float[Array, "i o"]) -> Float[Array, "i o"]:
        """Returns the product with the matrix."""
        inside = self.inputs.T @ v @ self.outputs * self.values
        return self.inputs @ inside @ self.outputs.T


@at_precision
def kfac_factors(
    apply: Apply,
    params: Params,
    x: Array,
    loss_hessian: OutputHessian = cross_entropy_hessian,
    *,
    weights: Float[Array, " n"] | None = None,
    chunk: int = 64,
    precision: Precision = "highest",
) -> KroneckerFactors:
    """Returns the Kronecker factors of the Gauss-Newton matrix of a mean loss.

    A = Σ_i v_i Σ_t a_it a_itᵀ,   G = Σ_i v_i 1/T Σ_t g_it g_itᵀ,   g_it = (∂outputs_i/∂y_it)ᵀ S_i

    with a_it [in] what the layer's kernel sees of example i at place t of its T outputs (T = 1 of a
    dense layer on vectors), a one appended for the bias, and S_i S_iᵀ the Hessian of the loss of
    example i in its outputs: the expectation over the network's own labels, exact, for c backward
    passes per example. For the cross-entropy this is the Fisher information too.

    Layers are found in the program of `apply`, of whatever library it is made.

    Args:
      apply: (params, x) -> [n, c], a row of its own input alone.
      params: where.
      x: [n, ...] inputs.
      loss_hessian: of the mean loss in the outputs; see `ggn_vp`.
      weights: v [n], of sum 1; None for 1/n each.
      chunk: examples at a time; the result does not depend on it.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: an array of parameters with two axes or more belongs to no dense layer or
        convolution that is used once (it is named); `chunk` < 1; or `apply` mixes its inputs (not
        asked under a transformation).

    Example:
      factors = kernels.kfac_factors(apply, params, x)
      step = kernels.kfac_inverse(factors, damping=0.1)(v)

    Source: Martens and Grosse 2015, §3; Grosse and Martens 2016, §3, for convolutions, whose
    places are taken to be alike and independent of one another.
    """
    network = read_network(apply, params, x, loss_hessian, weights)
    return network.sums(params, x, chunk)(network.factors)


@at_precision
def kfac_inverse(
    factors: KroneckerFactors,
    damping: Float[Array, ""] | float,
    *,
    exact: bool = False,
    precision: Precision = "highest",
) -> KfacInverse:
    """Returns v -> (A ⊗ G + λ I)⁻¹ v, layer by layer.

    By default the damping is shared out between the factors, which costs two Cholesky
    factorisations a layer:

    (A + π √λ I)⁻¹ ⊗ (G + √λ / π I)⁻¹,   π² = (tr A / dim A) / (tr G / dim G)

    Args:
      factors: of `kfac_factors`.
      damping: λ > 0.
      exact: damps the product itself, by the eigenvectors of A and G, which take some ten times as
        long.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: the damping is not above 0.

    Example:
      inverse = kernels.kfac_inverse(kernels.kfac_factors(apply, params, x), damping=0.1)
      step = inverse(v)  # like params

    Source: Martens and Grosse 2015, §6.3, for π.
    """
    check_damping(damping)
    make = _damp_exactly if exact else _share_out
    return KfacInverse(
        factors.layout,
        tuple(make(a, g, damping) for a, g in zip(factors.inputs, factors.outputs, strict=True)),
        tuple(damped_block(block, damping) for block in factors.blocks),
    )


def kfac_operator(
    factors: KroneckerFactors, *, precision: Precision = "highest"
) -> Callable[[Params], Params]:
    """Returns v -> (A ⊗ G) v, layer by layer: K-FAC's Gauss-Newton matrix itself.

    Args:
      factors: of `kfac_factors`.
      precision: of the matrix products; see `Precision`.

    Example:
      product = kernels.kfac_operator(kernels.kfac_factors(apply, params, x))(v)  # like params
    """
    pairs = zip(factors.inputs, factors.outputs, strict=True)
    layers = [lambda v, a=a, g=g: a @ v @ g for a, g in pairs]
    return product_by_layers(factors.layout, layers, factors.blocks, precision)


def product_by_layers(
    layout: Layout,
    layers: Sequence[Callable[[Array], Array]],
    blocks: Sequence[Array],
    precision: Precision,
) -> Callable[[Params], Params]:
    """Returns v -> what `layers` make of its layers, and the products of `blocks` with the rest.

    Args:
      layout: which parameters are of which layer.
      layers: a function of [inputs, outputs] for each layer.
      blocks: a matrix for each of the other parameters.
      precision: of the matrix products; see `Precision`.
    """

    def product(vector: Params) -> Params:
        with jax.default_matmul_precision(precision):
            return by_layers(layout, vector, layers, [block.__matmul__ for block in blocks])

    return product


def check_damping(damping: Array | float) -> None:
    """Raises ValueError if a damping leaves factors without an inverse, where it is known."""
    if not isinstance(damping, jax.core.Tracer) and not damping > 0:
        raise ValueError(
            f"damping must be > 0, got {damping}: factors of dark pixels and of a softmax, whose "
            "logits may all be shifted, have no inverse"
        )


def damped_block(block: Array, damping: Array | float) -> Array:
    """Returns the Cholesky factor of a damped block."""
    lower: Array = jnp.linalg.cholesky(_shifted(block, damping))
    return lower


def check_weights(weights: Array, n: int) -> None:
    """Raises ValueError if there is not one weight for each of n examples."""
    if weights.shape != (n,):
        raise ValueError(f"weights must be [n], one for each of {n} examples, got {weights.shape}")


def _share_out(a: Array, g: Array, damping: Array | float) -> _Factored:
    sizes = jnp.trace(a) / len(a), jnp.trace(g) / len(g)
    alive = (sizes[0] > 0) & (sizes[1] > 0)
    pi = jnp.where(alive, jnp.sqrt(sizes[0] / jnp.where(alive, sizes[1], 1)), 1)
    root = jnp.sqrt(damping)
    return _Factored(
        jnp.linalg.cholesky(_shifted(a, pi * root)), jnp.linalg.cholesky(_shifted(g, root / pi))
    )


def _damp_exactly(a: Array, g: Array, damping: Array | float) -> Diagonalised:
    of_inputs, inputs = jnp.linalg.eigh(a)
    of_outputs, outputs = jnp.linalg.eigh(g)
    products = jnp.maximum(of_inputs, 0)[:, None] * jnp.maximum(of_outputs, 0)
    return Diagonalised(inputs, outputs, products + damping)


def _shifted(matrix: Array, shift: Array | float) -> Array:
    return matrix + shift * jnp.eye(len(matrix), dtype=matrix.dtype)


class Pieces(NamedTuple):
    """What one example adds.

    Attributes:
      inputs: for each layer, a [t, in].
      slopes: for each layer, g [c, t, out].
      rest: for each other leaf, the products of its Jacobian with S [c, size].
    """

    inputs: list[Array]
    slopes: list[Array]
    rest: list[Array]


@runtime_checkable
class Total(Protocol):
    """Sums a function of pieces and weights over the examples; see `Reading.sums`."""

    def __call__(self, function: Callable[..., R], /, *more: object) -> R: ...


class Reading(NamedTuple):
    """A network as K-FAC reads it.

    Attributes:
      program: of one example.
      layout: its layers.
      loss_hessian: of the mean loss in the outputs.
      weights: of the examples [n], of sum 1.
    """

    program: jex.ClosedJaxpr
    layout: Layout
    loss_hessian: OutputHessian
    weights: Float[Array, " n"]

    def pieces(self, params: Params, x: Array) -> Pieces:
        """Returns what each example adds, with an axis for the examples before all others."""
        leaves = jax.tree.leaves(params)

        def of_one(one: Array) -> Pieces:
            return _pieces_of(self.program, self.layout, leaves, one, self.loss_hessian)

        found: Pieces = jax.vmap(of_one)(x)
        return found

    def sums(self, params: Params, x: Array, chunk: int) -> Total:
        """Returns (f, *more) -> Σ f(pieces, weights, *more) over chunks of the examples.

        The pieces of a single chunk are made once for every f, those of several anew for each.

        Args:
          params: where.
          x: [n, ...] inputs.
          chunk: examples at a time.
        """
        if x.shape[0] <= chunk:
            pieces = self.pieces(params, x)
            return lambda function, *more: function(pieces, self.weights, *more)

        def over_chunks(function: Callable[..., R], *more: object) -> R:
            def part(point: tuple[Params, tuple[object, ...]], x: Array, weights: Array) -> R:
                params, more = point
                return function(self.pieces(params, x), weights, *more)

            found: R = _chunks.sum_batches(part, (params, more), (x, self.weights), chunk)
            return found

        return over_chunks

    def factors(self, pieces: Pieces, weights: Float[Array, " n"]) -> KroneckerFactors:
        """Returns the sums over some examples."""
        return KroneckerFactors(
            self.layout,
            tuple(_weighted_gram(weights, a) for a in pieces.inputs),
            tuple(_weighted_gram(weights, g) / g.shape[2] for g in pieces.slopes),
            tuple(_weighted_gram(weights, j) for j in pieces.rest),
        )


def read_network(
    apply: Apply,
    params: Params,
    x: Array,
    loss_hessian: OutputHessian,
    weights: Float[Array, " n"] | None,
) -> Reading:
    """Returns the network with its layers found.

    Args:
      apply: (params, x) -> [n, c].
      params: where.
      x: [n, ...] inputs.
      loss_hessian: of the mean loss in the outputs.
      weights: of the examples; None for 1/n each.

    Raises:
      ValueError: see `kfac_factors`.
    """
    check_rows_alone(apply, params, x)
    layout, n = find_layers(apply, params, x[0]), x.shape[0]
    share = jnp.full(n, 1 / n, jnp.result_type(*jax.tree.leaves(params)))
    held = share if weights is None else weights
    check_weights(held, n)
    return Reading(program_of(apply, params, x[0]), layout, loss_hessian, held)


def _weighted_gram(weights: Float[Array, " n"], rows: Float[Array, "n ... s"]) -> Array:
    """Returns Σ_i v_i Σ r rᵀ over the rows r of example i, [s, s]."""
    each = weights.reshape(-1, *(1,) * (rows.ndim - 1))
    size = rows.shape[-1]
    found: Array = (each * rows).reshape(-1, size).T @ rows.reshape(-1, size)
    return found


def _pieces_of(
    program: jex.ClosedJaxpr,
    layout: Layout,
    leaves: list[Array],
    one: Array,
    loss_hessian: OutputHessian,
) -> Pieces:
    """Returns what one example adds to the curvature of each layer.

    Args:
      program: of the network for one example.
      layout: its layers.
      leaves: of its parameters.
      one: the example.
      loss_hessian: of the mean loss in the outputs.
    """
    shapes = Watch({})
    jax.eval_shape(lambda leaves, one: run_watched(program, leaves, one, shapes), leaves, one)
    kernels = [kernel for kernel, _ in layout.layers]

    def outputs(rest: list[Array], additions: list[Array]) -> tuple[Array, list[Array]]:
        held = list(leaves)
        for i, leaf in zip(layout.others, rest, strict=True):
            held[i] = leaf
        watch = Watch(dict(zip(kernels, additions, strict=True)))
        out = run_watched(program, held, one, watch)
        return out, [watch.seen[i] for i in kernels]

    dtype = jnp.result_type(*leaves)
    additions = [jnp.zeros(shapes.shapes[i], dtype) for i in kernels]
    rest = [leaves[i] for i in layout.others]
    out, pullback, inputs = jax.vjp(outputs, rest, additions, has_aux=True)
    of_rest, slopes = jax.vmap(pullback)(root_of(loss_hessian, out).T)
    joint = [
        rows if bias is None else jnp.concatenate([rows, jnp.ones((len(rows), 1), dtype)], axis=1)
        for rows, (_, bias) in zip(inputs, layout.layers, strict=True)
    ]
    c = out.shape[0]
    return Pieces(
        joint,
        [slope.reshape(c, -1, slope.shape[-1]) for slope in slopes],
        [leaf.reshape(c, -1) for leaf in of_rest],
    )


def root_of(loss_hessian: OutputHessian, out: Float[Array, " c"]) -> Float[Array, "c c"]:
    """Returns S with S Sᵀ the Hessian of one example's loss in its outputs."""
    if loss_hessian is cross_entropy_hessian:
        p = jax.nn.softmax(out)
        root = jnp.sqrt(p)
        return jnp.diag(root) - jnp.outer(p, root)
    units = jnp.eye(out.shape[0], dtype=out.dtype)
    hessian = jax.vmap(lambda u: loss_hessian(out[None], u[None])[0])(units)
    values, vectors = jnp.linalg.eigh((hessian + hessian.T) / 2)
    found: Array = vectors * jnp.sqrt(jnp.maximum(values, 0))
    return found
