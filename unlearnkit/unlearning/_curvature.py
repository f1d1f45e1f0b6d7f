"""Damped solves with the curvature of a training loss, shared by the second-order unlearners."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from unlearnkit import kernels
from unlearnkit.base import Dataset, Model, Params, SolveInfo, Variables
from unlearnkit.costs import BACKWARD, HVP, JVP
from unlearnkit.training import cross_entropy
from unlearnkit.unlearning._one_shot import at_state
from unlearnkit.validation import check_above, check_at_least, check_known

LossName = Literal["softmax", "l2"]
CurvatureName = Literal["ggn", "hessian"]
Operator = Callable[[Params], Params]


@dataclasses.dataclass(frozen=True)
class CurvatureSettings:
    """How a second-order step is solved for.

    (A + (weight_decay + damping) I) x = b,   A the curvature of the mean loss, by products alone:
    `ggn` is positive semi-definite and solved by conjugate gradients, `hessian` may be indefinite
    and is solved by MINRES.

    Attributes:
      loss: what the network was trained with: `softmax` cross-entropy, or `l2`, 1/2 ‖f - onehot‖².
      curvature: `ggn` or `hessian`.
      weight_decay: λ of the training's (λ/2)‖w‖².
      damping: more on the diagonal; 0 is the exact curvature.
      tol: relative residual of the solve.
      max_steps: its most steps.
      chunk: examples at a time; memory does not grow with the data.
    """

    loss: LossName = "softmax"
    curvature: CurvatureName = "ggn"
    weight_decay: float = 5e-4
    damping: float = 1e-2
    tol: float = 1e-4
    max_steps: int = 1000
    chunk: int = 100

    def __post_init__(self) -> None:
        check_known("loss", self.loss, get_args(LossName))
        check_known("curvature", self.curvature, get_args(CurvatureName))
        check_at_least(self, 0, "weight_decay", "damping")
        check_above(self, 0, "tol")
        check_at_least(self, 1, "max_steps", "chunk")

    @property
    def product_cost(self) -> float:
        """Example-gradients of one product with the curvature, an example."""
        return JVP + BACKWARD if self.curvature == "ggn" else HVP

    def solve_cost(self, info: SolveInfo, examples: int) -> float:
        """Returns the example-gradients of a solve: a product per step, and one at its end."""
        return examples * self.product_cost * (int(info.steps) + 1)

    def gradient(self, model: Model, variables: Variables, dataset: Dataset) -> Params:
        """Returns the gradient of the mean loss, decay left out."""
        loss = _batch_loss(self.loss, model, variables)
        return kernels.risk_gradient(loss, variables.params, dataset, chunk=self.chunk)

    def operator(self, model: Model, variables: Variables, dataset: Dataset) -> Operator:
        """Returns v -> A v."""
        params = variables.params
        if self.curvature == "hessian":
            loss = _batch_loss(self.loss, model, variables)
            return kernels.risk_hessian_operator(loss, params, dataset, chunk=self.chunk)
        apply, hessian = at_state(model, variables.state), _OUTPUT_HESSIANS[self.loss]
        return kernels.risk_ggn_operator(apply, params, dataset.x, hessian, chunk=self.chunk)

    def solve(self, operator: Operator, b: Params) -> tuple[Params, SolveInfo]:
        """Returns x of the system above, and how the solve ended."""
        solver = kernels.cg if self.curvature == "ggn" else kernels.minres
        damping = self.weight_decay + self.damping
        return solver(operator, b, damping=damping, tol=self.tol, max_steps=self.max_steps)


def squared_error(outputs: Float[Array, "n c"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Returns the mean of 1/2 ‖outputs_i - onehot(y_i)‖²."""
    errors = outputs - jax.nn.one_hot(labels, outputs.shape[1], dtype=outputs.dtype)
    return jnp.mean(jnp.sum(errors**2, axis=1)) / 2


_LOSSES: dict[str, Any] = {"softmax": cross_entropy, "l2": squared_error}
_OUTPUT_HESSIANS: dict[str, Any] = {
    "softmax": kernels.cross_entropy_hessian,
    "l2": kernels.squared_error_hessian,
}


def _batch_loss(
    name: LossName, model: Model, variables: Variables
) -> Callable[[Params, Array, Array], Array]:
    apply, loss = at_state(model, variables.state), _LOSSES[name]
    return lambda params, x, y: loss(apply(params, x), y)
