"""The differentiable linear auditor: a soft-margin linear classifier as a function of its data.

The solution is exact to rounding and costs O(n d^2) in time and O(n d) in memory; its derivative is
that of the implicit function theorem, one system of at most 2 (d + 1) unknowns.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from unlearnkit.kernels import active_set, margin_newton
from unlearnkit.kernels._trees import Precision, at_precision
from unlearnkit.kernels.interior_point import interior_point
from unlearnkit.kernels.solvers import Scalar
from unlearnkit.kernels.svm_solution import SvmSolution, SvmStatus, judge, name_case
from unlearnkit.validation import check_choice

Loss: TypeAlias = Literal["hinge", "squared_hinge", "logistic"]

_SMOOTH = {"squared_hinge": margin_newton.SQUARED_HINGE, "logistic": margin_newton.LOGISTIC}


@at_precision
def svm(
    features: Shaped[Array, "n d"],
    labels: Shaped[Array, " n"],
    *,
    C: Scalar,
    loss: Loss = "hinge",
    sample_weight: Shaped[Array, " n"] | None = None,
    precision: Precision = "highest",
) -> SvmSolution:
    """Returns the soft-margin linear classifier of labelled features.

    min_(w, b)  1/2 |w|^2 + C sum_i s_i l(y_i (w.x_i + b)),    with l(m) one of
    max(0, 1 - m) (hinge), max(0, 1 - m)^2 (squared hinge), log(1 + exp(-m)) (logistic).

    The bias is not regularised. Weights, bias and multipliers are differentiable in features, C and
    sample weights, in forward and reverse mode. For the hinge the derivative is that of the
    solution pinned down by the examples on the margin; it is one of the one-sided derivatives where
    an example on the margin has a multiplier of exactly 0 or C s.

    The KKT residual is relative: the greater of stationarity,
    max_j |w_j - sum_i alpha_i y_i x_ij| / (|w_j| + max_i |x_ij| sum_i alpha_i), the bias included
    as the feature 1 without regularisation, and for the hinge complementarity,
    max_i |u_i - clip(u_i - g_i, 0, C s_i / max alpha)|, with u = alpha / max alpha and
    g_i = (m_i - 1) / (1 + |b| + sum_j |w_j x_ij|). For the smooth losses alpha_i = -C s_i l'(m_i)
    takes its place: max_i |alpha_i + C s_i l'(m_i)| / (C s_i max l'' (1 + |b| + sum_j |w_j x_ij|)).

    Args:
      features: [n, d]; computed in float32 unless they are float64.
      labels: [n], -1 or +1; not differentiated.
      C: weight of the losses, > 0, in units of 1 / features^2.
      loss: "hinge", "squared_hinge" or "logistic".
      sample_weight: [n], >= 0, or booleans; 1 if None. Examples of weight 0 do not matter, so that
        folds of unequal size can be one batch under `jax.vmap`.
      precision: of the matrix products; see `Precision`. Below `highest` the solution is no longer
        exact to rounding where the device rounds the factors.

    Returns:
      The classifier; degenerate problems are named in `info.status` and have a solution too.

    Raises:
      ValueError: shapes, labels, C, weights or loss are not as above, or a value is not finite.
        Under a transformation only what the shapes tell is refused; the rest is `INVALID_INPUT`.

    Example:
      machine = kernels.svm(x, 2 * (y > 0) - 1, C=1.0)
      print(machine.weights, machine.bias, machine.info.status)
      slope = jax.grad(lambda x: kernels.svm(x, 2 * (y > 0) - 1, C=1.0).bias)(x)  # [n, d]

    Source: Cortes and Vapnik 1995, problem (26); the auditor of Di et al. 2024, §3 to 4 and A.4;
    Mehrotra 1992 for the interior point, Ferris and Munson 2002 for its d + 1 unknowns.
    """
    _check(features, labels, C, loss, sample_weight)
    dtype = jnp.promote_types(features.dtype, jnp.float32)
    weight = jnp.ones(labels.shape, dtype) if sample_weight is None else sample_weight
    found: SvmSolution = _fit(
        features.astype(dtype),
        jax.lax.stop_gradient(labels.astype(dtype)),
        jnp.asarray(C, dtype) * weight.astype(dtype),
        loss=loss,
    )
    return found


@at_precision
def logistic_regression(
    features: Shaped[Array, "n d"],
    labels: Shaped[Array, " n"],
    *,
    C: Scalar,
    sample_weight: Shaped[Array, " n"] | None = None,
    precision: Precision = "highest",
) -> SvmSolution:
    """Returns the l2-regularised logistic regression of labels -1 and +1, solved to rounding.

    min_(w, b)  1/2 |w|^2 + C sum_i s_i log(1 + exp(-y_i (w.x_i + b)))

    It is `svm` with the logistic loss: the same arguments, derivatives and degenerate cases.

    Args:
      features: [n, d].
      labels: [n], -1 or +1.
      C: inverse of the strength of the regularisation, > 0.
      sample_weight: [n], >= 0; 1 if None.
      precision: as in `svm`.

    Returns:
      The classifier; `decision` is the log odds of the label +1, in nats.

    Raises:
      ValueError: as `svm`.

    Example:
      machine = kernels.logistic_regression(x, 2 * (y > 0) - 1, C=1.0)
      scores = machine.decision(x)  # [n]

    Source: Hastie, Tibshirani and Friedman 2009, §4.4 (Newton's method, IRLS).
    """
    options: Any = {"sample_weight": sample_weight, "precision": precision}
    return svm(features, labels, C=C, loss="logistic", **options)


@at_precision
def one_vs_rest(
    features: Shaped[Array, "n d"],
    labels: Int[Array, " n"],
    *,
    n_classes: int,
    C: Scalar,
    loss: Loss = "hinge",
    sample_weight: Shaped[Array, " n"] | None = None,
    precision: Precision = "highest",
) -> SvmSolution:
    """Returns one classifier per class against all others, solved together.

    Row k of the result is `svm(features, where(labels == k, 1, -1))`; the predicted class is the
    argmax of `decision`.

    Args:
      features: [n, d].
      labels: [n] int, 0 to n_classes - 1.
      n_classes: the number of classifiers, >= 2.
      C: as in `svm`.
      loss: as in `svm`.
      sample_weight: as in `svm`.
      precision: as in `svm`.

    Returns:
      weights [n_classes, d], bias [n_classes], and every field of `info` with a leading axis.

    Raises:
      ValueError: as `svm`, or a label is not one of the classes.

    Example:
      machine = kernels.one_vs_rest(x, y, n_classes=3, C=1.0)
      predicted = machine.decision(x).argmax(-1)

    Source: Rifkin and Klautau 2004.
    """
    if n_classes < 2:
        raise ValueError(f"n_classes must be >= 2, got {n_classes}; use svm for one classifier")
    known = np.asarray(labels) if _is_concrete(labels) else np.zeros(1)
    if not np.all((known >= 0) & (known < n_classes)):
        raise ValueError(
            f"labels must be 0 to {n_classes - 1}, got {np.min(known)} to {np.max(known)}; "
            "renumber them or pass their number as n_classes"
        )
    signed = jnp.where(labels == jnp.arange(n_classes)[:, None], 1, -1)
    _check(features, signed[0], C, loss, sample_weight)
    options: Any = {"loss": loss, "sample_weight": sample_weight, "precision": precision}
    return jax.vmap(lambda one: svm(features, one, C=C, **options))(signed)


def _is_concrete(*values: Any) -> bool:
    return not any(isinstance(value, jax.core.Tracer) for value in values)


def _check(features: Any, labels: Any, C: Any, loss: str, sample_weight: Any) -> None:
    check_choice("loss", loss, Loss)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"features must be [n, d] with n, d >= 1, got {features.shape}; "
            "give one row to every example, and map over folds with jax.vmap"
        )
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"labels must be [{features.shape[0]}], one per row of features, got {labels.shape}"
        )
    if jnp.ndim(C) != 0:
        raise ValueError(f"C must be a scalar, got shape {jnp.shape(C)}; use sample_weight")
    if _is_concrete(C) and not (float(C) > 0 and math.isfinite(C)):
        raise ValueError(f"C must be finite and > 0, got {C}; for a hard margin use a large C")
    if _is_concrete(labels) and not np.all(np.abs(labels) == 1):
        wrong = np.asarray(labels)[np.abs(np.asarray(labels)) != 1][0]
        raise ValueError(f"labels must be -1 or +1, got {wrong}; map 0/1 labels by 2 * y - 1")
    if sample_weight is not None:
        if sample_weight.shape != labels.shape:
            raise ValueError(
                f"sample_weight must be {labels.shape}, one per example, got {sample_weight.shape}"
            )
        weight = np.asarray(sample_weight) if _is_concrete(sample_weight) else np.ones(1)
        if not np.all(np.isfinite(weight)):
            raise ValueError("sample_weight must be finite; give weight 0 to leave an example out")
        if not np.all(weight >= 0):
            raise ValueError(f"sample_weight must be >= 0, got {np.min(weight)}")
    if _is_concrete(features, sample_weight):
        rows = np.all(np.isfinite(np.asarray(features)), axis=1)
        if not np.all(rows if sample_weight is None else rows | (np.asarray(sample_weight) == 0)):
            raise ValueError(
                "features must be finite; drop the examples that are not, or give them weight 0"
            )


@partial(jax.jit, static_argnames="loss")
def _fit(features: Array, labels: Array, c: Array, *, loss: Loss) -> SvmSolution:
    weighted = c > 0
    invalid = ~jnp.all(jnp.where(weighted[:, None], jnp.isfinite(features), True))
    invalid |= ~jnp.all(jnp.isfinite(c) & (c >= 0)) | jnp.any(weighted & (jnp.abs(labels) != 1))
    features = jnp.where(weighted[:, None], features, 0)
    labels = jnp.where(weighted, labels, 0)
    centre, scale, n_constant = _standardisation(features, c)
    largest = jax.lax.stop_gradient(jnp.max(c))
    largest = jnp.where(largest > 0, largest, 1)
    # In units of `scale` and of the largest weight the problem's numbers are near 1, and the
    # quadratic term has the small coefficient 1 / (C scale^2).
    scaled = jnp.where(weighted[:, None], (features - centre) / scale, 0)
    ridge = jnp.ones(features.shape[1] + 1, c.dtype).at[-1].set(0)
    z, alpha, counts = _minimise(
        loss, _signed_rows(scaled, labels), c / largest, ridge / largest / scale**2
    )

    one_class = jnp.all(labels >= 0) | jnp.all(labels <= 0)
    least = -math.log(jnp.finfo(c.dtype).eps) if loss == "logistic" else 1.0
    weights = jnp.where(one_class, 0, z[:-1] / scale)
    bias = jnp.where(one_class, least * jnp.sign(jnp.sum(labels)), z[-1] - weights @ centre)
    bounded = active_set.reaches_bound(alpha, c / largest) & (loss == "hinge")
    alpha = jnp.where(one_class, 0, jnp.where(bounded, c, alpha * largest))

    constants = jax.lax.stop_gradient((features, c, weights, bias, alpha))
    info = judge(
        _signed_rows(constants[0], labels),
        constants[1],
        jnp.append(constants[2], constants[3]),
        constants[4],
        jax.lax.stop_gradient(counts).astype(int),
        _SMOOTH.get(loss),
    )
    cases = [
        (n_constant == features.shape[1], SvmStatus.CONSTANT_FEATURES),
        (one_class, SvmStatus.ONE_CLASS),
        (~jnp.any(weighted), SvmStatus.NO_EXAMPLES),
        (invalid, SvmStatus.INVALID_INPUT),
    ]
    info = info._replace(
        status=name_case(info.status, cases), multipliers=alpha, n_constant_features=n_constant
    )
    weights, bias = jax.tree.map(lambda v: jnp.where(invalid, jnp.nan, v), (weights, bias))
    return SvmSolution(weights, bias, info._replace(converged=info.converged & ~invalid))


def _signed_rows(features: Array, labels: Array) -> Array:
    return labels[:, None] * jnp.pad(features, ((0, 0), (0, 1)), constant_values=1)


def _standardisation(features: Array, c: Array) -> tuple[Array, Array, Array]:
    """Returns the centre [d], one scale, and the number of constant features.

    They are constants of the differentiation: the solution does not depend on them.
    """
    features, c = jax.lax.stop_gradient((features, c))
    weighted = (c > 0)[:, None]
    low = jnp.min(jnp.where(weighted, features, jnp.inf), axis=0)
    high = jnp.max(jnp.where(weighted, features, -jnp.inf), axis=0)
    share = c / jnp.maximum(jnp.sum(c), jnp.finfo(c.dtype).tiny)
    # The mean of a constant feature is off by rounding; centred on its value it is exactly 0.
    centre = jnp.where(low < high, share @ features, jnp.where(low == high, low, 0))
    reach = jnp.max(jnp.where(low < high, high - low, 0))
    reach = jnp.where(reach > 0, reach, 1)
    spread = jnp.where(weighted, (features - centre) / reach, 0)
    scale = reach * jnp.sqrt(share @ jnp.sum(spread**2, axis=1))
    return centre, jnp.where(scale > 0, scale, 1), jnp.sum(low >= high)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _minimise(loss: Loss, rows: Array, c: Array, ridge: Array) -> tuple[Array, Array, Array]:
    """Returns z, alpha, and [steps, pivots, rank of the margin] as floats."""
    if loss != "hinge":
        z, alpha, steps = margin_newton.newton(_SMOOTH[loss], rows, c, ridge)
        rank = pivots = jnp.zeros_like(steps)
    else:
        point, steps = interior_point(rows, c, ridge)
        z, alpha, rank, pivots = active_set.polish(rows, c, ridge, point)
    return z, alpha, jnp.stack([steps, pivots, rank]).astype(c.dtype)


@_minimise.defjvp
def _minimise_jvp(loss: Loss, primals: Any, tangents: Any) -> Any:
    z, alpha, counts = _minimise(loss, *primals)
    if loss == "hinge":
        dz, d_alpha = active_set.implicit_tangents(primals, tangents, z, alpha)
    else:
        dz, d_alpha = margin_newton.implicit_tangents(_SMOOTH[loss], primals, tangents, z)
    return (z, alpha, counts), (dz, d_alpha, jnp.zeros_like(counts))
