"""Kernels beside the full NTK: its diagonal, pseudo-NTK and NNGP; and expansions in weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unlearnkit.base import Params
from unlearnkit.kernels import _chunks, _dense_layers, _trees
from unlearnkit.kernels._outputs import Apply, Flat, Summed, check_fits, check_outputs
from unlearnkit.kernels._trees import Inputs, Precision, at_precision, count
from unlearnkit.kernels.ntk import empirical_ntk


@at_precision
def ntk_diagonal(
    apply: Apply,
    params: Params,
    x: Inputs,
    *,
    chunk: int = 64,
    precision: Precision = "highest",
) -> Float[Array, "n ..."]:
    """Returns the diagonal of the empirical NTK, the squared norm of each output's gradient.

    Θ[i, a, i, a] = ‖∇ f_a(x_i)‖²,   of a dense layer as ‖h_i‖² ‖g_ia‖², with no gradient formed.

    Args:
      apply: (params, x) -> outputs [n, ...], a row of its own input alone.
      params: where.
      x: [n, ...] inputs, an array or a pytree of arrays.
      chunk: inputs at a time.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: `chunk` < 1; see `empirical_ntk`.

    Example:
      sizes = kernels.ntk_diagonal(apply, params, x)  # [n, c]
    """
    outputs = check_outputs(apply, params, x)
    found: Array = _chunks.by_chunks(partial(_squares, Flat(apply)), params, (x,), chunk)
    return found.reshape(count(x), *outputs)


@partial(jax.jit, static_argnums=0)
def _squares(apply: Apply, params: Params, x: Inputs) -> Array:
    one = jax.tree.map(lambda leaf: leaf[0], x)
    dense = _dense_layers.dense_kernels(apply, params, one)
    pieces = _dense_layers.factors(apply, params, x, dense)
    pairs = zip(pieces.inputs, pieces.slopes, strict=True)
    layers = [jnp.sum(h**2, axis=1)[:, None] * jnp.sum(g**2, axis=2) for h, g in pairs]
    found: Array = reduce(jnp.add, [*layers, *(jnp.sum(g**2, axis=2) for g in pieces.rest)])
    return found


def pseudo_ntk(
    apply: Apply,
    params: Params,
    x1: Inputs,
    x2: Inputs = None,
    *,
    method: str = "auto",
    chunk: int = 64,
    precision: Precision = "highest",
) -> Float[Array, "n1 n2"]:
    """Returns the pseudo-NTK, one number a pair of inputs at c² times less than the NTK.

    ∇ f̄(x1_i) · ∇ f̄(x2_j),   f̄ = Σ_a f_a / √c: near the NTK's mean diagonal in wide networks,
    where outputs have independent last weights.

    Args:
      apply: (params, x) -> outputs [n, ...] of c numbers each, a row of its own input alone.
      params: where.
      x1: [n1, ...] inputs.
      x2: [n2, ...] inputs; x1 where None.
      method: see `empirical_ntk`.
      chunk: see `empirical_ntk`.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: see `empirical_ntk`.

    Example:
      kernel = kernels.pseudo_ntk(apply, params, x)  # [n, n]

    Source: Mohamadi, Bae and Sutherland 2023, A fast, well-founded approximation to the empirical
    neural tangent kernel.
    """
    check_outputs(apply, params, x1)
    mean = Summed(apply)
    return empirical_ntk(mean, params, x1, x2, method=method, chunk=chunk, precision=precision)


@at_precision
def empirical_nngp(
    apply: Apply,
    params: Params,
    x1: Inputs,
    x2: Inputs = None,
    *,
    precision: Precision = "highest",
) -> Float[Array, "n1 n2"]:
    """Returns the kernel of a network's outputs, one draw of its NNGP.

    K[i, j] = 1/c Σ_a f_a(x1_i) f_a(x2_j). Its mean over fresh weights is the covariance of the
    Gaussian process that wide networks tend to: `estimate` takes it, with standard errors.

    Args:
      apply: (params, x) -> outputs [n, ...] of c numbers each.
      params: the weights drawn.
      x1: [n1, ...] inputs.
      x2: [n2, ...] inputs; x1 where None.
      precision: of the matrix products; see `Precision`.

    Raises:
      ValueError: see `empirical_ntk`.

    Example:
      one_draw = kernels.empirical_nngp(apply, params, x)  # [n, n]
      draw = lambda params: kernels.empirical_nngp(apply, params, x)
      found = kernels.estimate(key, kernels.gaussian(params), draw, samples=20)
      print(found.mean, found.standard_error)

    Source: Lee et al. 2018, Deep neural networks as Gaussian processes.
    """
    check_outputs(apply, params, x1)
    rows = Flat(apply)(params, x1)
    columns = rows if x2 is None else Flat(apply)(params, x2)
    what, remedy = f"the kernel {[len(rows), len(columns)]}", "take fewer inputs at a time"
    check_fits(len(rows) * len(columns), rows.dtype, what, remedy)
    return rows @ columns.T / rows.shape[1]


def linearize(apply: Apply, params: Params) -> Apply:
    """Returns the network that is linear in its weights: (p, x) -> f(x) + J(x) (p - params).

    f and J are of `params`. Gradient flow of it is ruled by a kernel that stays the empirical NTK.

    Args:
      apply: (params, x) -> outputs [n, ...].
      params: where it touches the network.

    Example:
      linear = kernels.linearize(apply, params)
      outputs = linear(params, x)  # as apply(params, x)

    Source: Lee et al. 2019, Wide neural networks of any depth evolve as linear models under
    gradient descent, equation (5).
    """
    return taylor_expand(apply, params, 1)


def taylor_expand(apply: Apply, params: Params, degree: int) -> Apply:
    """Returns the Taylor polynomial of a network in its weights, as a network.

    (p, x) -> Σ_k 1/k! dᵏ/dtᵏ f(params + t (p - params), x) at t = 0, for k from 0 to `degree`: a
    forward pass costs up to 2^degree of them.

    Args:
      apply: (params, x) -> outputs [n, ...].
      params: where it is expanded.
      degree: of the polynomial.

    Raises:
      ValueError: `degree` < 0, or at a call weights that are not like `params`.

    Example:
      quadratic = kernels.taylor_expand(apply, params, 2)
      outputs = quadratic(jax.tree.map(lambda p: 1.01 * p, params), x)
    """
    if degree < 0:
        raise ValueError(f"degree must be >= 0, got {degree}")

    def expanded(weights: Params, x: Inputs) -> Array:
        _trees.check_like("the weights", weights, "params", params)
        step = _trees.subtract(weights, params)
        dtype = jnp.result_type(*jax.tree.leaves(params))

        def along(t: Array) -> Array:
            return apply(_trees.axpy(t, step, params), x)

        derivatives: list[Callable[[Array], Array]] = [along]
        for _ in range(degree):
            derivatives.append(_derivative(derivatives[-1], jnp.ones((), dtype)))
        zero = jnp.zeros((), dtype)
        terms = [d(zero) / math.factorial(order) for order, d in enumerate(derivatives)]
        return reduce(jnp.add, terms)

    return expanded


def _derivative(function: Callable[[Array], Array], one: Array) -> Callable[[Array], Array]:
    return lambda t: jax.jvp(function, (t,), (one,))[1]
