"""Products with the Hessian, the Jacobian, the Gauss-Newton matrix and the Fisher's diagonal.

The operators (`hvp_operator`, `ggn_operator`) linearise once: build them inside the compiled
function that uses them, so that what they keep is traced and not baked in as constants.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from unlearnkit.base import Dataset, Params
from unlearnkit.kernels import _chunks, _ring, _trees
from unlearnkit.kernels._trees import Inputs, Precision, at_precision
from unlearnkit.validation.separability import check_mean_of_examples, check_rows_alone

Loss = Callable[[Params], Array]
Apply = Callable[[Params, Inputs], Array]
OutputHessian = Callable[[Array, Array], Array]


@at_precision
def hvp(loss: Loss, params: Params, vector: Params, *, precision: Precision = "highest") -> Params:
    """Returns the Hessian-vector product of `loss` at `params`.

    H v,   H = d²loss / dparams²,   as the derivative of the gradient along v: about 2 gradients.

    Args:
      loss: params -> scalar.
      params: where.
      vector: v, like `params`.
      precision: of the matrix products; see `Precision`.

    Returns:
      H v, like `params`.

    Raises:
      ValueError: `vector` is not like `params`, or `loss` does not return a scalar.

    Example:
      product = kernels.hvp(lambda p: loss(p, x, y), params, v)  # H v, like params

    Source: Pearlmutter 1994, Fast exact multiplication by the Hessian (forward over reverse).
    """
    _trees.check_like("vector", vector, "params", params)
    _trees.check_scalar("loss", loss, params)
    return jax.jvp(jax.grad(loss), (params,), (vector,))[1]


@at_precision
def hvp_operator(
    loss: Loss, params: Params, *, precision: Precision = "highest"
) -> Callable[[Params], Params]:
    """Returns v -> H v with the gradient linearised once, for many products at one point.

    H = d²loss / dparams². It keeps the activations of one gradient; a product costs about 1.

    Args:
      loss: params -> scalar.
      params: where.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: `loss` does not return a scalar.

    Example:
      hessian = kernels.hvp_operator(lambda p: loss(p, x, y), params)  # linearised once
      product = hessian(hessian(v))  # H² v
    """
    _trees.check_scalar("loss", loss, params)
    return jax.linearize(jax.grad(loss), params)[1]


@at_precision
def jacobian_vp(
    apply: Apply,
    params: Params,
    x: Inputs,
    vector: Params,
    *,
    chunk: int | None = None,
    precision: Precision = "highest",
) -> Float[Array, "n ..."]:
    """Returns the Jacobian-vector product J v,   J = dapply(params, x) / dparams.

    Args:
      apply: (params, x) -> [n, ...], a row of its own input alone where `chunk` is given.
      params: where.
      x: [n, ...] inputs, an array or a pytree of arrays.
      vector: v, like `params`.
      chunk: inputs at a time; all where None.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: `vector` is not like `params`, `chunk` < 1, or `apply` in chunks mixes its inputs
        (not asked under a transformation).

    Example:
      change = kernels.jacobian_vp(apply, params, x, v)  # of the outputs along v, [n, c]
    """
    _trees.check_like("vector", vector, "params", params)
    if chunk is not None:
        check_rows_alone(apply, params, x)

    def push(point: tuple[Params, Params], inputs: Inputs) -> Array:
        parameters, direction = point
        found: Array = jax.jvp(lambda p: apply(p, inputs), (parameters,), (direction,))[1]
        return found

    found: Array = _chunks.map_batches(
        push, (params, vector), (x,), _trees.count(x) if chunk is None else chunk
    )
    return found


@at_precision
def jacobian_transpose_vp(
    apply: Apply,
    params: Params,
    x: Inputs,
    cotangent: Float[Array, "n ..."],
    *,
    chunk: int | None = None,
    precision: Precision = "highest",
) -> Params:
    """Returns the vector-Jacobian product Jᵀ u,   J = dapply(params, x) / dparams.

    Args:
      apply: (params, x) -> [n, ...], a row of its own input alone where `chunk` is given.
      params: where.
      x: [n, ...] inputs, an array or a pytree of arrays.
      cotangent: u, like the outputs.
      chunk: inputs at a time; all where None.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: `cotangent` is not like the outputs, `chunk` < 1, or `apply` in chunks mixes its
        inputs (not asked under a transformation).

    Example:
      pulled = kernels.jacobian_transpose_vp(apply, params, x, apply(params, x))  # like params
    """
    _trees.check_like("cotangent", cotangent, "the outputs", jax.eval_shape(apply, params, x))
    if chunk is not None:
        check_rows_alone(apply, params, x)

    def pull(parameters: Params, inputs: Inputs, vector: Array) -> Params:
        return jax.vjp(lambda p: apply(p, inputs), parameters)[1](vector)[0]

    return _chunks.sum_batches(
        pull, params, (x, cotangent), _trees.count(x) if chunk is None else chunk
    )


@at_precision
def ggn_vp(
    apply: Apply,
    params: Params,
    x: Array,
    loss_hessian: OutputHessian,
    vector: Params,
    *,
    precision: Precision = "highest",
) -> Params:
    """Returns the product with the generalised Gauss-Newton matrix, PSD for convex losses.

    Jᵀ B J v,   J = dapply(params, x) / dparams,   B the Hessian of the loss in the outputs.

    Args:
      apply: (params, x) -> [n, c].
      params: where.
      x: [n, ...] inputs.
      loss_hessian: (outputs [n, c], u [n, c]) -> B u [n, c]; `cross_entropy_hessian` and
        `squared_error_hessian` are here, `output_hessian(loss)` makes one of any loss.
      vector: v, like `params`.
      precision: of the matrix products; see `Precision`.

    Returns:
      Jᵀ B J v, like `params`.

    Raises:
      ValueError: `vector` is not like `params`.

    Example:
      product = kernels.ggn_vp(apply, params, x, kernels.cross_entropy_hessian, v)

    Source: Schraudolph 2002, Fast curvature matrix-vector products.
    """
    _trees.check_like("vector", vector, "params", params)
    return ggn_operator(apply, params, x, loss_hessian, precision=precision)(vector)


@at_precision
def ggn_operator(
    apply: Apply,
    params: Params,
    x: Array,
    loss_hessian: OutputHessian,
    *,
    mesh: Mesh | None = None,
    precision: Precision = "highest",
) -> Callable[[Params], Params]:
    """Returns v -> Jᵀ B J v with the network linearised once; see `ggn_vp`.

    Args:
      apply: (params, x) -> [n, c].
      params: where.
      x: [n, ...] inputs.
      loss_hessian: (outputs [n, c], u [n, c]) -> B u [n, c].
      mesh: of one axis, whose devices take equally many successive inputs each with their
        activations; a product sums over them. None for one device.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: a mesh cannot share the inputs evenly.

    Example:
      gauss_newton = kernels.ggn_operator(apply, params, x, kernels.cross_entropy_hessian)
      product = gauss_newton(v)
    """
    if mesh is not None:
        _ring.check_shares(_trees.count(x), mesh)
        x, params = _ring.constrain_rows(x, mesh), _ring.constrain_to_all(params, mesh)
    outputs, pushforward = jax.linearize(lambda p: apply(p, x), params)
    pullback = jax.linear_transpose(pushforward, params)

    def product(vector: Params) -> Params:
        return pullback(loss_hessian(outputs, pushforward(vector)))[0]

    return product


def cross_entropy_hessian(
    logits: Float[Array, "n c"], vector: Float[Array, "n c"]
) -> Float[Array, "n c"]:
    """Returns the Hessian of the mean softmax cross-entropy in the logits, times `vector`.

    (B u)_i = (p_i ∘ u_i - p_i (p_i·u_i)) / n,   p_i = softmax(logits_i); no labels needed.

    Example:
      logits = apply(params, x)
      product = kernels.cross_entropy_hessian(logits, logits)  # B u of the mean loss, [n, c]
    """
    p = jax.nn.softmax(logits)
    return (p * vector - p * jnp.sum(p * vector, axis=-1, keepdims=True)) / logits.shape[0]


def squared_error_hessian(
    outputs: Float[Array, "n c"], vector: Float[Array, "n c"]
) -> Float[Array, "n c"]:
    """Returns the Hessian of 1/(2n) Σ_i ‖outputs_i - y_i‖² in the outputs, times `vector`.

    Example:
      gauss_newton = kernels.ggn_operator(apply, params, x, kernels.squared_error_hessian)
    """
    return vector / outputs.shape[0]


def output_hessian(loss: Callable[[Array], Array]) -> OutputHessian:
    """Returns (outputs, u) -> B u for any `loss` of the outputs, by automatic differentiation.

    Example:
      hessian = kernels.output_hessian(lambda outputs: jnp.mean(outputs**4))
      product = kernels.ggn_vp(apply, params, x, hessian, v)
    """
    return lambda outputs, vector: jax.jvp(jax.grad(loss), (outputs,), (vector,))[1]


@at_precision
def fisher_diagonal(
    apply: Apply,
    params: Params,
    x: Array,
    *,
    chunk: int = 128,
    classes: int | None = None,
    precision: Precision = "highest",
) -> Params:
    """Returns the diagonal of the Fisher information of a softmax classifier.

    F = 1/n Σ_i Σ_c p_ic (∇ log p_ic)²,   p_i = softmax(apply(params, x_i)): the expectation is over
    the model's own labels and is exact, at c backward passes per example.

    Args:
      apply: (params, x) -> logits [n, c].
      params: where.
      x: [n, ...] inputs.
      chunk: examples at a time; the result does not depend on it.
      classes: how many of the most probable labels to sum over; all where None.
      precision: of the matrix products; see `Precision`.

    Returns:
      The diagonal, like `params`.

    Raises:
      ValueError: `chunk` or `classes` is below 1, or `classes` above c, or `apply` mixes its inputs
        (not asked under a transformation).

    Example:
      diagonal = kernels.fisher_diagonal(apply, params, x, chunk=64)  # like params

    Source: Golatkar et al. 2020b, §5.3 and equation (11), noise by the Fisher information; Kunstner
    et al. 2019 for why the labels are the model's own. `empirical_fisher_diagonal` takes the given
    labels instead.
    """
    c = jax.eval_shape(apply, params, x).shape[-1]
    kept = c if classes is None else classes
    if not 1 <= kept <= c:
        raise ValueError(f"classes must be from 1 to the number of logits {c}, got {classes}")
    check_rows_alone(apply, params, x)

    def of_example(parameters: Params, example: Array) -> Params:
        def log_likelihoods(p: Params) -> Array:
            return jax.nn.log_softmax(apply(p, example[None])[0])

        logs, pullback = jax.vjp(log_likelihoods, parameters)
        weights, labels = jax.lax.top_k(jnp.exp(logs), kept)
        gradients = jax.vmap(pullback)(jax.nn.one_hot(labels, c, dtype=logs.dtype))[0]
        return jax.tree.map(lambda g: jnp.tensordot(weights, g**2, axes=1), gradients)

    return _chunks.mean_over_examples(of_example, params, (x,), chunk)


@at_precision
def empirical_fisher_diagonal(
    loss: Callable[[Params, Array, Array], Array],
    params: Params,
    dataset: Dataset,
    *,
    chunk: int = 128,
    precision: Precision = "highest",
) -> Params:
    """Returns the diagonal of the empirical Fisher: 1/n Σ_i (∇ loss_i)², with the given labels.

    Args:
      loss: (params, x, y) -> the mean loss of a batch.
      params: where.
      dataset: n examples.
      chunk: examples at a time; the result does not depend on it.
      precision: of the matrix products; see `Precision`.

    Returns:
      The diagonal, like `params`.

    Raises:
      ValueError: `chunk` is below 1, or the loss mixes its examples (not asked under a
        transformation).

    Example:
      diagonal = kernels.empirical_fisher_diagonal(loss, params, dataset, chunk=64)
    """
    check_mean_of_examples(loss, params, dataset.x, dataset.y)

    def of_example(parameters: Params, x: Array, y: Array) -> Params:
        gradient = jax.grad(loss)(parameters, x[None], y[None])
        return jax.tree.map(jnp.square, gradient)

    return _chunks.mean_over_examples(of_example, params, (dataset.x, dataset.y), chunk)
