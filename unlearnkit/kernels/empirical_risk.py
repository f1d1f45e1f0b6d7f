"""Gradient and curvature of the mean loss over a dataset that is taken a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from unlearnkit.base import Dataset, Params
from unlearnkit.kernels import _chunks, _trees
from unlearnkit.kernels._trees import Precision, at_precision
from unlearnkit.kernels.curvature import OutputHessian, ggn_operator, hvp
from unlearnkit.kernels.per_example import BatchLoss
from unlearnkit.validation.separability import check_mean_of_examples, check_rows_alone

Apply = Callable[[Params, Array], Array]


@at_precision
def risk_gradient(
    loss: BatchLoss,
    params: Params,
    dataset: Dataset,
    *,
    chunk: int,
    precision: Precision = "highest",
) -> Params:
    """Returns the gradient of the mean loss: 1/n Σ_i ∇ loss(params, x_i, y_i), like `params`.

    Args:
      loss: (params, x [m, ...], y [m]) -> the mean loss of a batch.
      params: where.
      dataset: n examples.
      chunk: examples at a time; bounds the memory, does not change the sum beyond rounding.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: `chunk` < 1, or the loss mixes its examples (not asked under a transformation).

    Example:
      gradient = kernels.risk_gradient(loss, params, dataset, chunk=500)
    """
    check_mean_of_examples(loss, params, dataset.x, dataset.y)
    n = dataset.x.shape[0]

    def part(parameters: Params, x: Array, y: Array) -> Params:
        return _trees.scale(x.shape[0] / n, jax.grad(loss)(parameters, x, y))

    return _chunks.sum_batches(part, params, (dataset.x, dataset.y), chunk)


def risk_hessian_operator(
    loss: BatchLoss, params: Params, dataset: Dataset, *, chunk: int
) -> Callable[[Params], Params]:
    """Returns v -> H v,   H = 1/n Σ_i ∇² loss(params, x_i, y_i), symmetric, perhaps indefinite.

    Raises as `risk_gradient`.

    Args:
      loss: (params, x [m, ...], y [m]) -> the mean loss of a batch.
      params: where.
      dataset: n examples.
      chunk: examples at a time; bounds the memory.

    Example:
      hessian = kernels.risk_hessian_operator(loss, params, dataset, chunk=500)
      product = hessian(v)
    """
    check_mean_of_examples(loss, params, dataset.x, dataset.y)
    n = dataset.x.shape[0]

    def part(point: Any, x: Array, y: Array) -> Params:
        parameters, vector = point
        product = hvp(lambda p: loss(p, x, y), parameters, vector)
        return _trees.scale(x.shape[0] / n, product)

    def product(vector: Params) -> Params:
        return _chunks.sum_batches(part, (params, vector), (dataset.x, dataset.y), chunk)

    return product


def risk_ggn_operator(
    apply: Apply, params: Params, x: Array, loss_hessian: OutputHessian, *, chunk: int
) -> Callable[[Params], Params]:
    """Returns v -> G v,   G = 1/n Σ_i J_iᵀ B_i J_i, positive semi-definite for convex losses.

    Args:
      apply: (params, x) -> [n, c], a row of its own input alone.
      params: where.
      x: [n, ...] inputs.
      loss_hessian: of the mean loss of a batch, as `cross_entropy_hessian`; see `ggn_vp`.
      chunk: inputs at a time.

    Raises:
      ValueError: `chunk` < 1, or `apply` mixes its inputs (not asked under a transformation).

    Example:
      hessian = kernels.cross_entropy_hessian
      gauss_newton = kernels.risk_ggn_operator(apply, params, x, hessian, chunk=500)
      product = gauss_newton(v)
    """
    check_rows_alone(apply, params, x)
    n = x.shape[0]

    def part(point: Any, inputs: Array) -> Params:
        parameters, vector = point
        product = ggn_operator(apply, parameters, inputs, loss_hessian)(vector)
        return _trees.scale(inputs.shape[0] / n, product)

    def product(vector: Params) -> Params:
        return _chunks.sum_batches(part, (params, vector), (x,), chunk)

    return product
