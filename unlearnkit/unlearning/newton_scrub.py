"""Newton scrubbing."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar

import jax
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
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True)
class NewtonScrub(CurvatureSettings):
    """Takes one Newton step on the loss of the retain set.

    h(w) = w - H⁻¹ ∇L_r(w),   L_r(w) = 1/N_r Σ_retain ℓ_i(w) + (λ/2)‖w - c‖²

    with H the curvature of L_r and the damping. Where L_r is quadratic and nothing is damped, h(w)
    is the retrained network.

    Attributes:
      loss, curvature, weight_decay, damping, tol, max_steps, chunk: see `CurvatureSettings`.

    Example:
      unlearn = unlearning.NewtonScrub(damping=1e-2, max_steps=100)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: a gradient of every example, and products with the curvature until the solve has
    converged.

    Source: Golatkar et al. 2020b, equation (12); Golatkar et al. 2020a; Guo et al. 2020. The
    damping is ours: in an over-parametrised network H has a null space.
    """

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        small={"damping": 0.1},
        effective={"damping": 0.01, "weight_decay": 5e-4},
        deterministic=True,
        whole_sets=True,
    )

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        initial: Variables | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> Unlearned:
        """Returns the network after the step; the key is not used.

        `info.solves["newton"]` says how the solve ended.

        Args:
          key: ignored: the step is deterministic.
          model: the network.
          variables: the trained weights w.
          task: the question.
          initial: the weights c that the training's decay pulls to; zero where None.
          on_epoch: called once.

        Raises:
          ValueError: a task or variables that do not fit the model.
          DivergedError: a weight is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        if initial is not None:
            check_variables(initial, model)
        centre = None if initial is None else initial.params
        with Stopwatch() as watch:
            params, info = _newton_step(model, self, variables, centre, task.retain)
            jax.block_until_ready(params)
        n = task.retain.size
        cost = Cost(n + self.solve_cost(info, n), watch.seconds, watch.compile_seconds)
        return finish(
            model,
            params,
            variables.state,
            task,
            cost,
            solves={"newton": info},
            on_epoch=on_epoch,
        )


@partial(jax.jit, static_argnames=("model", "method"))
def _newton_step(
    model: Model,
    method: NewtonScrub,
    variables: Variables,
    centre: Params | None,
    retain: Dataset,
) -> tuple[Params, SolveInfo]:
    params, decay = variables.params, method.weight_decay
    pulled = params if centre is None else jax.tree.map(lambda w, c: w - c, params, centre)
    gradient = method.gradient(model, variables, retain)
    gradient = jax.tree.map(lambda g, w: g + decay * w, gradient, pulled)
    step, info = method.solve(method.operator(model, variables, retain), gradient)
    return jax.tree.map(lambda w, d: w - d, params, step), info
