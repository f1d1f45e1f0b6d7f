"""EK-FAC: K-FAC's eigenvectors with the curvature along each of them as it is; and diagonals.

K-FAC says that the Gauss-Newton matrix of a layer is A ⊗ G, and so that along the eigenvectors
u_A ⊗ u_G of that product the curvature is the product of two eigenvalues. EK-FAC keeps the
eigenvectors and measures the curvature along each, which no other diagonal there is closer than.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unlearnkit.base import Params
from unlearnkit.kernels import _chunks
from unlearnkit.kernels._kronecker_layers import Apply, Layout
from unlearnkit.kernels._outputs import check_outputs
from unlearnkit.kernels._trees import Precision, at_precision
from unlearnkit.kernels.curvature import OutputHessian, cross_entropy_hessian
from unlearnkit.kernels.kfac import (
    Diagonalised,
    KfacInverse,
    KroneckerFactors,
    Pieces,
    check_damping,
    damped_block,
    product_by_layers,
    read_network,
    root_of,
)

EigenBases: TypeAlias = tuple[tuple[Array, ...], tuple[Array, ...]]


class EigenFactors(NamedTuple):
    """EK-FAC of a Gauss-Newton matrix; a pytree of arrays, to be kept while weights move.

    Attributes:
      layout: which leaves of the parameters each layer is of.
      inputs: for each layer the eigenvectors of A, [in, in].
      outputs: for each layer the eigenvectors of G, [out, out].
      values: for each layer the curvature along each pair of them, [in, out].
      blocks: for each leaf of no layer, its own block [size, size], which is exact.
    """

    layout: Layout
    inputs: tuple[Float[Array, "i i"], ...]
    outputs: tuple[Float[Array, "o o"], ...]
    values: tuple[Float[Array, "i o"], ...]
    blocks: tuple[Float[Array, "s s"], ...]


@at_precision
def ekfac_factors(
    apply: Apply,
    params: Params,
    x: Array,
    loss_hessian: OutputHessian = cross_entropy_hessian,
    *,
    weights: Float[Array, " n"] | None = None,
    factors: KroneckerFactors | None = None,
    chunk: int = 64,
    precision: Precision = "highest",
) -> EigenFactors:
    """Returns EK-FAC of the Gauss-Newton matrix of a mean loss.

    values = Σ_i v_i Σ_k (U_Aᵀ (Σ_t a_it g_itkᵀ) U_G)²,   A = U_A Λ U_Aᵀ, G = U_G M U_Gᵀ

    with a and g as of `kfac_factors`, one g for each column k of the root of the loss's Hessian:
    the diagonal of the exact block in K-FAC's eigenvectors. It takes one more pass than K-FAC,
    where the examples are more than one chunk.

    Args:
      apply: (params, x) -> [n, c], a row of its own input alone.
      params: where.
      x: [n, ...] inputs.
      loss_hessian: of the mean loss in the outputs; see `ggn_vp`.
      weights: v [n], of sum 1; None for 1/n each.
      factors: of `kfac_factors`, whose eigenvectors are taken, as of other data; made where None.
      chunk: examples at a time; the result does not depend on it.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: see `kfac_factors`.

    Example:
      factors = kernels.ekfac_factors(apply, params, x)
      step = kernels.ekfac_inverse(factors, damping=0.1)(v)

    Source: George et al. 2018, Fast approximate natural gradient descent in a Kronecker-factored
    eigenbasis.
    """
    network = read_network(apply, params, x, loss_hessian, weights)
    total = network.sums(params, x, chunk)
    if factors is None:
        factors = total(network.factors)
    inputs = tuple(jnp.linalg.eigh(a)[1] for a in factors.inputs)
    outputs = tuple(jnp.linalg.eigh(g)[1] for g in factors.outputs)
    values = total(_values, (inputs, outputs))
    return EigenFactors(factors.layout, inputs, outputs, tuple(values), factors.blocks)


def _values(pieces: Pieces, weights: Float[Array, " n"], bases: EigenBases) -> list[Array]:
    """Returns the curvature along each pair of eigenvectors, over some examples."""
    along = zip(pieces.inputs, pieces.slopes, *bases, strict=True)
    return [_curvature(a, g, left, right, weights) for a, g, left, right in along]


def _curvature(
    a: Float[Array, "n t i"],
    g: Float[Array, "n c t o"],
    left: Float[Array, "i i"],
    right: Float[Array, "o o"],
    weights: Float[Array, " n"],
) -> Float[Array, "i o"]:
    """Returns Σ_i v_i Σ_k (U_Aᵀ (Σ_t a_it g_itkᵀ) U_G)², by the way that multiplies least."""
    _, t, i = a.shape
    c, o = g.shape[1], g.shape[3]
    if t == 1:  # the square of a product is the product of the squares
        squares = jnp.sum((g[:, :, 0] @ right) ** 2, axis=1)
        found: Array = ((a[:, 0] @ left) ** 2).T @ (weights[:, None] * squares)
        return found
    if t * (i**2 + c * o**2) < c * i * o * (i + o):
        gradients = jnp.einsum("nti,nkto->nkio", a @ left, g @ right)
    else:
        gradients = left.T @ jnp.einsum("nti,nkto->nkio", a, g) @ right
    return jnp.einsum("n,nkio->io", weights, gradients**2)


@at_precision
def ekfac_inverse(
    factors: EigenFactors, damping: Float[Array, ""] | float, *, precision: Precision = "highest"
) -> KfacInverse:
    """Returns v -> (U diag(values) Uᵀ + λ I)⁻¹ v, layer by layer; a preconditioner of `cg`.

    Args:
      factors: of `ekfac_factors`.
      damping: λ > 0.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: the damping is not above 0.

    Example:
      inverse = kernels.ekfac_inverse(kernels.ekfac_factors(apply, params, x), damping=0.1)
      step = inverse(v)  # like params
    """
    check_damping(damping)
    parts = zip(factors.inputs, factors.outputs, factors.values, strict=True)
    layers = tuple(Diagonalised(left, right, values + damping) for left, right, values in parts)
    blocks = tuple(damped_block(block, damping) for block in factors.blocks)
    return KfacInverse(factors.layout, layers, blocks)


def ekfac_operator(
    factors: EigenFactors, *, precision: Precision = "highest"
) -> Callable[[Params], Params]:
    """Returns v -> U diag(values) Uᵀ v, layer by layer: EK-FAC's Gauss-Newton matrix itself.

    Args:
      factors: of `ekfac_factors`.
      precision: of the matrix products; see `Precision`.

    Example:
      product = kernels.ekfac_operator(kernels.ekfac_factors(apply, params, x))(v)  # like params
    """
    parts = zip(factors.inputs, factors.outputs, factors.values, strict=True)
    layers = [Diagonalised(*part).multiply for part in parts]
    return product_by_layers(factors.layout, layers, factors.blocks, precision)


@at_precision
def ggn_diagonal(
    apply: Apply,
    params: Params,
    x: Array,
    loss_hessian: OutputHessian,
    *,
    chunk: int = 128,
    precision: Precision = "highest",
) -> Params:
    """Returns the diagonal of the Gauss-Newton matrix of a mean loss, exactly.

    diag(Jᵀ B J) = 1/n Σ_i Σ_k (J_iᵀ s_ik)²,   S_i S_iᵀ the Hessian of example i's loss in its
    outputs: c backward passes an example. For the cross-entropy it is `fisher_diagonal`.

    Args:
      apply: (params, x) -> [n, c], a row of its own input alone.
      params: where.
      x: [n, ...] inputs.
      loss_hessian: of the mean loss in the outputs, positive semi-definite; see `ggn_vp`.
      chunk: examples at a time; the result does not depend on it.
      precision: of the matrix products; see `Precision`.

    Returns:
      The diagonal, like `params`; `jacobi` makes a preconditioner of it.

    Raises:
      ValueError: `chunk` < 1, or `apply` mixes its inputs (not asked under a transformation).

    Example:
      diagonal = kernels.ggn_diagonal(apply, params, x, kernels.squared_error_hessian)

    Source: Dangel, Kunstner and Hennig 2020, BackPACK, appendix A.
    """
    check_outputs(apply, params, x)

    def of_example(parameters: Params, example: Array) -> Params:
        outputs, pullback = jax.vjp(lambda p: apply(p, example[None])[0], parameters)
        columns = jax.vmap(pullback)(root_of(loss_hessian, outputs).T)[0]
        return jax.tree.map(lambda leaf: jnp.sum(leaf**2, axis=0), columns)

    return _chunks.mean_over_examples(of_example, params, (x,), chunk)
