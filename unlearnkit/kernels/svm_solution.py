"""What a linear auditor is and how its solve is judged, on the problem as stated."""

from __future__ import annotations

import enum
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from unlearnkit.kernels import active_set, margin_newton
from unlearnkit.kernels.margin_newton import MarginLoss

TOLERANCE = {"float32": 1e-6, "float64": 1e-10}
"""The KKT residual at which a solve counts as converged."""


class SvmStatus(enum.IntEnum):
    """What kind of solution was found; of several that hold, the greatest.

    Attributes:
      OPTIMAL: the ordinary case.
      SEPARABLE: hinge; no example is inside the margin, so that no larger C changes the solution.
      DEGENERATE_MARGIN: hinge; more examples on the margin than it has dimensions, as with
        duplicated points. Weights and bias are unique, the multipliers are not, and the derivative
        is that of one basis of the margin.
      BIAS_NOT_UNIQUE: hinge; no example has 0 < alpha < c, so that an interval of biases is
        optimal. The bias is its middle, and the derivative that of its middle.
      CONSTANT_FEATURES: every feature is constant: the weights are 0.
      NOT_CONVERGED: the KKT residual is above the tolerance.
      ONE_CLASS: all examples of positive weight have one label y. The weights are 0 and their
        derivative too; the bias is y, the least without loss. The logistic loss has no
        minimiser: its bias is y ln(1 / eps), where its slope is at rounding.
      NO_EXAMPLES: no example has positive weight: weights and bias are 0.
      INVALID_INPUT: under a transformation, where values cannot be refused: a feature, weight or C
        is not finite or has the wrong sign, or a label is not -1 or +1. Weights and bias are NaN.
    """

    OPTIMAL = 0
    SEPARABLE = 1
    DEGENERATE_MARGIN = 2
    BIAS_NOT_UNIQUE = 3
    CONSTANT_FEATURES = 4
    NOT_CONVERGED = 5
    ONE_CLASS = 6
    NO_EXAMPLES = 7
    INVALID_INPUT = 8


class SvmInfo(NamedTuple):
    """How the solve ended.

    Attributes:
      status: a value of `SvmStatus`.
      converged: whether kkt_residual <= 1e-6 in float32, 1e-10 in float64.
      kkt_residual: see `svm`.
      duality_gap: (primal - dual objective) / primal objective, from terms that do not cancel.
      steps: interior-point or Newton steps.
      pivots: systems solved on the margin after the interior point; 0 for the smooth losses.
      n_support: examples with alpha > 0.
      n_margin: examples with 0 < alpha < c; 0 for the smooth losses.
      n_constant_features: features of one value over all examples of positive weight.
      bias_interval: least and greatest optimal bias; both the bias where it is unique.
      multipliers: alpha, with w = sum_i alpha_i y_i x_i and sum_i alpha_i y_i = 0.
    """

    status: Int[Array, "*k"]
    converged: Bool[Array, "*k"]
    kkt_residual: Float[Array, "*k"]
    duality_gap: Float[Array, "*k"]
    steps: Int[Array, "*k"]
    pivots: Int[Array, "*k"]
    n_support: Int[Array, "*k"]
    n_margin: Int[Array, "*k"]
    n_constant_features: Int[Array, "*k"]
    bias_interval: Float[Array, "*k 2"]
    multipliers: Float[Array, "*k n"]


class SvmSolution(NamedTuple):
    """A linear classifier.

    Attributes:
      weights: [d], or [classes, d].
      bias: scalar, or [classes].
      info: how the solve ended.
    """

    weights: Float[Array, "*k d"]
    bias: Float[Array, "*k"]
    info: SvmInfo

    def decision(self, features: Float[Array, "n d"]) -> Float[Array, " n *k"]:
        """Returns w.x + b of every example, and of every class where there are several."""
        return features @ self.weights.T + self.bias


def judge(
    rows: Float[Array, "n k"],
    c: Float[Array, " n"],
    z: Float[Array, " k"],
    alpha: Float[Array, " n"],
    counts: Int[Array, " 3"],
    loss: MarginLoss | None,
) -> SvmInfo:
    """Returns the info of a solution; the status knows the solution only, not yet the data.

    Args:
      rows: signed examples y (x, 1); zero where the weight is.
      c: weights C s.
      z: weights, then bias.
      alpha: multipliers.
      counts: steps, pivots, rank of the margin.
      loss: the differentiable loss; None is the hinge.
    """
    ridge = jnp.ones_like(z).at[-1].set(0)
    margin, weighted = rows @ z, c > 0
    mismatch = jnp.sum((z - rows.T @ alpha)[:-1] ** 2) / 2
    pinned = jnp.stack([z[-1], z[-1]])
    interval = active_set.bias_interval(rows, z, alpha)
    if loss is None:
        residual = active_set.kkt_residual(rows, c, ridge, z, alpha)
        excess = jnp.maximum(1 - margin, 0)
        losses = c @ excess
        gap = mismatch + alpha @ jnp.maximum(margin - 1, 0) + (c - alpha) @ excess
        n_margin = jnp.sum((alpha > 0) & (alpha < c))
        interval = jnp.where(n_margin > 0, pinned, interval)
    else:
        residual = margin_newton.kkt_residual(loss, rows, c, ridge, z, alpha)
        losses = c @ loss.value(margin)
        gap = mismatch
        n_margin = jnp.zeros((), int)
        interval = jnp.where(jnp.any(alpha > 0), pinned, interval)
    objective = jnp.sum(z[:-1] ** 2) / 2 + losses
    converged = residual <= TOLERANCE[z.dtype.name]
    cases = [(~converged, SvmStatus.NOT_CONVERGED)]
    if loss is None:
        separable = ~jnp.any(weighted & (alpha >= c))
        cases = [
            (separable, SvmStatus.SEPARABLE),
            (n_margin > counts[2], SvmStatus.DEGENERATE_MARGIN),
            (n_margin == 0, SvmStatus.BIAS_NOT_UNIQUE),
            *cases,
        ]
    return SvmInfo(
        status=name_case(jnp.asarray(SvmStatus.OPTIMAL.value), cases),
        converged=converged,
        kkt_residual=residual,
        duality_gap=jnp.where(gap > 0, gap / jnp.where(objective > 0, objective, 1), 0),
        steps=counts[0],
        pivots=counts[1],
        n_support=jnp.sum(alpha > 0),
        n_margin=n_margin,
        n_constant_features=jnp.zeros((), int),
        bias_interval=interval,
        multipliers=alpha,
    )


def name_case(status: Int[Array, ""], cases: list[tuple[Array, SvmStatus]]) -> Int[Array, ""]:
    """Returns the greatest of `status` and the statuses whose condition holds."""
    for holds, name in cases:
        status = jnp.where(holds, jnp.maximum(status, name.value), status)
    return status
