"""Influence unlearning (IU)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from unlearnkit.base import (
    Cost,
    Dataset,
    Model,
    OnEpoch,
    Params,
    SolveInfo,
    Task,
    Unlearned,
    Variables,
)
from unlearnkit.costs import Stopwatch
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning._curvature import CurvatureSettings
from unlearnkit.unlearning._one_shot import finish
from unlearnkit.validation import (
    check_above,
    check_at_least,
    check_known,
    check_task,
    check_variables,
)

FormName = Literal["solve", "woodfisher"]


@dataclasses.dataclass(frozen=True)
class Influence(CurvatureSettings):
    """Removes the forget set from the training loss, to first order.

    w <- w + α H⁻¹ (g_f - g_r),   g_f = 1/N Σ_forget ∇ℓ_i,   g_r = N_f / (N N_r) Σ_retain ∇ℓ_i

    with H the curvature of the training loss over all N examples, its weight decay and the damping.
    At a minimum and with α = 1 the error to retraining is of second order in N_f / N.

    Attributes:
      alpha: α, the length of the step.
      form: `solve` solves the damped system; `woodfisher` is the reference code's recursion, in
        which one running vector stays parallel to the first example's gradient, so that H⁻¹ is
        nearly the identity. It reads neither curvature, damping nor tol.
      samples: retained examples that `woodfisher` runs over, and its constant.
      loss, curvature, weight_decay, damping, tol, max_steps, chunk: see `CurvatureSettings`.

    Example:
      unlearn = unlearning.Influence(damping=1e-2, max_steps=100)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: a gradient of every example, and products with the curvature until the solve has
    converged.

    Source: Koh & Liang 2017; Izzo et al. 2021; the gradients' weights of Jia et al. 2023. Di et al.
    2024, Table 5 uses α = 10 with their WoodFisher.
    """

    alpha: float = 1.0
    form: FormName = "solve"
    samples: int = 1000

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        effective={"tol": 1e-3}, deterministic=True, whole_sets=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("form", self.form, get_args(FormName))
        check_above(self, 0, "alpha")
        check_at_least(self, 1, "samples")

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
    ) -> Unlearned:
        """Returns the network after the step; the key only orders the examples of `woodfisher`.

        `info.solves["influence"]` says how the solve ended.

        Raises:
          ValueError: a task or variables that do not fit the model.
          DivergedError: a weight is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        n = task.retain.size + task.forget.size
        solves: dict[str, SolveInfo] = {}
        with Stopwatch() as watch:
            if self.form == "solve":
                params, info = _by_solve(model, self, variables, task.retain, task.forget)
                solves["influence"] = info
                work = n + self.solve_cost(info, n)
            else:
                order = jax.random.permutation(key, task.retain.size)[: self.samples]
                params = _by_woodfisher(model, self, variables, task.retain, task.forget, order)
                work = float(n + order.size)
            jax.block_until_ready(params)
        cost = Cost(work, watch.seconds, watch.compile_seconds)
        return finish(model, params, variables.state, task, cost, solves=solves, on_epoch=on_epoch)


@partial(jax.jit, static_argnames=("model", "method"))
def _by_solve(
    model: Model, method: Influence, variables: Variables, retain: Dataset, forget: Dataset
) -> tuple[Params, SolveInfo]:
    on_retain, on_forget = (method.operator(model, variables, part) for part in (retain, forget))
    share = _forget_share(retain, forget)

    def over_all(vector: Params) -> Params:
        return jax.tree.map(
            lambda r, f: (1 - share) * r + share * f, on_retain(vector), on_forget(vector)
        )

    direction, info = method.solve(over_all, _difference(model, method, variables, retain, forget))
    return _step(variables.params, method.alpha, direction), info


@partial(jax.jit, static_argnames=("model", "method"))
def _by_woodfisher(
    model: Model,
    method: Influence,
    variables: Variables,
    retain: Dataset,
    forget: Dataset,
    order: Array,
) -> Params:
    def gradient(index: Array) -> Params:
        return method.gradient(model, variables, retain.take(index[None]))

    def update(carry: tuple[Params, Params], index: Array) -> tuple[Any, None]:
        vector, running = carry
        g = gradient(index)
        overlap = optax.tree.vdot(running, g)
        scale = 1 / (method.samples + overlap)
        vector = _step(vector, -scale * optax.tree.vdot(vector, g), running)
        return (vector, _step(running, -scale * overlap, running)), None

    with jax.default_matmul_precision("highest"):
        start = _difference(model, method, variables, retain, forget), gradient(order[0])
        (direction, _), _ = jax.lax.scan(update, start, order[1:])
    return _step(variables.params, method.alpha, direction)


def _difference(
    model: Model, method: Influence, variables: Variables, retain: Dataset, forget: Dataset
) -> Params:
    """Returns g_f - g_r."""
    share = _forget_share(retain, forget)
    g_forget, g_retain = (method.gradient(model, variables, part) for part in (forget, retain))
    return jax.tree.map(lambda f, r: share * (f - r), g_forget, g_retain)


def _forget_share(retain: Dataset, forget: Dataset) -> float:
    return forget.size / (retain.size + forget.size)


def _step(x: Params, scale: Any, direction: Params) -> Params:
    return jax.tree.map(lambda w, d: w + jnp.asarray(scale, w.dtype) * d, x, direction)
