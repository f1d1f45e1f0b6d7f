"""Bounds on what weights and answered queries reveal about the forget set, in nats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Num

from unlearnkit.auditing.gaussian_kl import cholesky, gaussian_kl
from unlearnkit.base import Model, Params, Variables
from unlearnkit.kernels import jacobian
from unlearnkit.training import predict
from unlearnkit.validation import check_finite, check_variables

Covariance: TypeAlias = float | Params | Float[np.ndarray, "p p"] | Float[Array, "p p"]
"""σ² of every weight alike; variances like the parameters; or [p, p] in `ravel_pytree`'s order."""
Correlations = Literal["full", "diagonal"]

_JACOBIAN_ENTRIES = 2**24
_COLUMNS = 4096


class GaussianWeights(NamedTuple):
    """Weights that are published with Gaussian noise: w ~ N(params, Σ).

    Attributes:
      variables: the mean of the weights, and the state.
      covariance: Σ, see `Covariance`; positive definite.
    """

    variables: Variables
    covariance: Covariance


def white_box_information(scrubbed: GaussianWeights, reference: GaussianWeights) -> float:
    """Returns a bound on what the scrubbed weights reveal about the forget set, in nats.

    I(D_f; S(w)) <= KL(N(h(w), Σ) ‖ N(w_r, Σ₀)), of one pair of training runs; its expectation over
    seeds (`mean_and_error`) is the bound.

    Args:
      scrubbed: h(w) of the network trained on everything, with the noise Σ of scrubbing.
      reference: w_r trained on the retain set alone with the same seed, with noise Σ₀.

    Raises:
      ValueError: weights of different networks, or a covariance that is not positive definite.

    Source: Golatkar et al. 2020b, proposition 1, equation (6), as corrected in `gaussian_kl`.
    """
    return gaussian_kl(*weight_gaussians(scrubbed, reference))


def query_information(
    model: Model,
    scrubbed: GaussianWeights,
    reference: GaussianWeights,
    x: Num[Array, "n ..."],
    *,
    correlations: Correlations = "full",
    damping: float = 0.0,
) -> Float[np.ndarray, " n"]:
    """Returns a bound on what each query's answer reveals about the forget set, in nats.

    I(D_f; f(x_i)) <= KL(N(f_h(x_i), J Σ Jᵀ) ‖ N(f_r(x_i), J₀ Σ₀ J₀ᵀ)) with the networks linearised
    in their weights, f the logits (probabilities sum to 1: their covariance is singular).

    Args:
      model: the network.
      scrubbed: h(w) and Σ.
      reference: w_r and Σ₀.
      x: the queries.
      correlations: `full` covariances [c, c] of a query's logits, or their `diagonal` alone.
      damping: variance of independent noise through which the logits are seen, added to both
        covariances; 0 sees them as they are.

    Raises:
      ValueError: weights that do not fit, or logits without noise in some direction.

    Source: Golatkar et al. 2020b, proposition 1, equation (7), as corrected in `gaussian_kl`.
    """
    divergences = [
        gaussian_kl(shift, *observed(covariances, correlations, damping))
        for shift, *covariances in query_gaussians(model, scrubbed, reference, x)
    ]
    return np.array(divergences)


def query_set_information(
    model: Model,
    scrubbed: GaussianWeights,
    reference: GaussianWeights,
    x: Num[Array, "n ..."],
    *,
    correlations: Correlations = "full",
    damping: float = 0.0,
) -> float:
    """Returns a bound on what all answers together reveal about the forget set, in nats.

    As `query_information`, of the n c logits jointly: less than the queries' sum where they repeat
    each other, and, of a linear network, never more than `white_box_information`. It holds
    two Jacobians [n c, p]; n c must not exceed the p weights where `damping` is 0.

    Args:
      model: the network.
      scrubbed: h(w) and Σ.
      reference: w_r and Σ₀.
      x: the queries.
      correlations: `full` covariance [n c, n c], or its `diagonal` alone.
      damping: see `query_information`.

    Raises:
      ValueError: weights that do not fit, or logits without noise in some direction.

    Source: Golatkar et al. 2020b, proposition 1, equation (7), as corrected in `gaussian_kl`.
    """
    _check(model, scrubbed, reference, x)
    covariances = []
    for weights in (scrubbed, reference):
        blocks = [rows for _, rows in _scaled_jacobians(model, weights, x)]
        rows = np.concatenate(blocks).reshape(len(x) * model.n_classes, -1)
        covariances.append(gram(rows))
    shift = _logits(model, scrubbed, x) - _logits(model, reference, x)
    return gaussian_kl(shift.ravel(), *observed(covariances, correlations, damping))


def weight_gaussians(
    scrubbed: GaussianWeights, reference: GaussianWeights
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns Δw [p], Σ and Σ₀ in float64, both [p] or both [p, p].

    Raises:
      ValueError: weights of different networks, or covariances of the wrong shape.
    """
    means = [_flat(g.variables.params) for g in (scrubbed, reference)]
    if means[0].shape != means[1].shape:
        raise ValueError(
            f"scrubbed and reference must be of one network, got {means[0].size} and "
            f"{means[1].size} weights"
        )
    one, other = (_covariance(g) for g in (scrubbed, reference))
    if one.ndim != other.ndim:
        one, other = (np.diag(s) if s.ndim == 1 else s for s in (one, other))
    return means[0] - means[1], one, other


def query_gaussians(
    model: Model, scrubbed: GaussianWeights, reference: GaussianWeights, x: Num[Array, "n ..."]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields, query by query, Δf [c], J Σ Jᵀ [c, c] and J₀ Σ₀ J₀ᵀ [c, c] in float64.

    Args:
      model: the network, of c outputs.
      scrubbed: the weights after forgetting, with their noise.
      reference: the weights that never saw the forget set, likewise.
      x: [n, ...] the queries.
    """
    _check(model, scrubbed, reference, x)
    shifts = _logits(model, scrubbed, x) - _logits(model, reference, x)
    pairs = zip(
        _scaled_jacobians(model, scrubbed, x), _scaled_jacobians(model, reference, x), strict=True
    )
    for (start, rows), (_, rows_0) in pairs:
        grams = (r.astype(np.float64) @ r.astype(np.float64).swapaxes(1, 2) for r in (rows, rows_0))
        yield from zip(shifts[start : start + len(rows)], *grams, strict=True)


def observed(
    covariances: Sequence[np.ndarray], correlations: Correlations, damping: float
) -> list[np.ndarray]:
    """Returns the covariances as they are seen: through noise, and with correlations or without.

    Args:
      covariances: [c, c] each, of the outputs of one query.
      correlations: `full`, or `diagonal` for an observer who sees each output alone.
      damping: variance of the noise of the observation, added to each output's.

    Raises:
      ValueError: unknown `correlations`, or `damping` < 0.
    """
    if correlations not in ("full", "diagonal"):
        raise ValueError(f"correlations must be full or diagonal, got {correlations!r}")
    if not damping >= 0:
        raise ValueError(f"damping must be >= 0, got {damping}")
    if correlations == "diagonal":
        return [np.diag(sigma) + damping for sigma in covariances]
    return [sigma + damping * np.eye(len(sigma)) for sigma in covariances]


def _check(model: Model, scrubbed: GaussianWeights, reference: GaussianWeights, x: Array) -> None:
    for weights in (scrubbed, reference):
        check_variables(weights.variables, model)
    if not len(x):
        raise ValueError("x must hold at least one query, got none")
    check_finite(x, name="the queries")


def _logits(model: Model, weights: GaussianWeights, x: Array) -> np.ndarray:
    return np.asarray(predict(model, weights.variables, x), np.float64)


def _flat(tree: Params) -> np.ndarray:
    return np.asarray(ravel_pytree(tree)[0], np.float64)


def _covariance(weights: GaussianWeights) -> np.ndarray:
    """Returns Σ as its diagonal [p] or whole [p, p], in float64."""
    params, given = weights.variables.params, weights.covariance
    p = sum(leaf.size for leaf in jax.tree.leaves(params))
    structure: Any = jax.tree.structure(given)
    if structure == jax.tree.structure(params):
        sigma = _flat(given)
    else:
        sigma = np.asarray(given, np.float64)
    sigma = np.full(p, float(sigma)) if sigma.ndim == 0 else sigma
    if sigma.shape not in ((p,), (p, p)):
        raise ValueError(
            f"the covariance of {p} weights must be a number, like the weights, or [{p}, {p}], "
            f"got {sigma.shape}"
        )
    if not np.all(np.isfinite(sigma)):
        raise ValueError("the covariance must be finite, got NaN or infinity")
    return sigma


def _scaled_jacobians(
    model: Model, weights: GaussianWeights, x: Array
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (start, J Σ^½ [m, c, p]) of the queries, a chunk at a time."""
    root = noise_root(weights)
    chunk = max(1, _JACOBIAN_ENTRIES // (model.n_classes * len(root)))
    for start in range(0, len(x), chunk):
        rows = np.asarray(jacobian_rows(weights.variables, x[start : start + chunk], model=model))
        scaled = rows @ root if root.ndim == 2 else rows * root
        yield start, scaled.astype(np.float32)


def noise_root(weights: GaussianWeights) -> np.ndarray:
    """Returns Σ^½, its diagonal [p] or a factor [p, p], in float64.

    Raises:
      ValueError: a covariance that does not fit, or is not positive definite.
    """
    sigma = _covariance(weights)
    return cholesky(sigma) if sigma.ndim == 2 else np.sqrt(sigma.clip(0))


@partial(jax.jit, static_argnames="model")
def jacobian_rows(variables: Variables, x: Array, *, model: Model) -> Float[Array, "n c p"]:
    """Returns the logits' Jacobian, its weights in the order of `ravel_pytree`.

    Args:
      variables: where.
      x: [n, ...] the queries.
      model: the network, of c outputs.
    """

    def apply(params: Params, inputs: Array) -> Array:
        return model.apply(Variables(params, variables.state), inputs)

    with jax.default_matmul_precision("highest"):
        rows = jacobian(apply, variables.params, x)
    shape = (len(x), model.n_classes, -1)
    return jnp.concatenate([leaf.reshape(shape) for leaf in jax.tree.leaves(rows)], axis=-1)


def gram(rows: np.ndarray) -> np.ndarray:
    """Returns R Rᵀ in float64: in float32 rounding takes small eigenvalues below 0."""
    total = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], _COLUMNS):
        part = rows[:, start : start + _COLUMNS].astype(np.float64)
        total += part @ part.T
    return total
