"""Poisons that make bad weights a stationary point of training (gradient canceling)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from unlearnkit.base import Cost, Dataset, Model, Params, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.poisoning import _canceling
from unlearnkit.poisoning._canceling import Balance, Canceling
from unlearnkit.poisoning._gradients import mean_gradient
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.grad_pc import GradPC
from unlearnkit.poisoning.placing import Placement, PoisonInfo, choose_rows, place, warn
from unlearnkit.training import DivergedError
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import (
    check_above,
    check_at_least,
    check_choice,
    check_continuous,
    check_task,
    check_variables,
    named_leaves,
)

_UNCANCELLED = 0.9
"""A share of the clean gradient above this is no cancellation."""


@dataclasses.dataclass(frozen=True)
class GradientCanceling:
    """Perturbs copies of examples until bad weights have no gradient on clean and poisoned data.

    min_Δ 1/2 ‖g_c + r g_p(Δ)‖²,   g_c = mean_clean ∇_w CE(w_low),
    g_p = mean_poisons ∇_w CE(w_low; x_i + Δ_i, y_i),   r = poisons for each clean example

    The poisons keep their labels. `info.extras` has `target/<name>`, the bad weights w_low, and
    `gradient_norm`: ‖g_c‖, ‖g_c + r g_p‖ with the base images, and at the end.

    Attributes:
      budget: how many poisons.
      bounds: within which they lie; none by default, as in Pawelczyk et al. 2024.
      placement: `add`; or `perturb` the examples in place, g_c then being that of the others.
      corruption: how w_low is made of the trained weights.
      parameters: names of the parameters whose gradient is cancelled, as `classifier` or
        `fc1/kernel`; all where empty.
      steps: of gradient descent.
      learning_rate: η in x_i <- Π(x_i - η_t m ∂L/∂x_i), m the number of poisons; it falls along a
        cosine to 0.
      chunk: examples at a time.

    Example:
      attack = poisoning.GradientCanceling(budget=poisoning.Budget(0.03), steps=500)
      poisoned = attack(key, model, variables, task)

    Cost: `3 * steps` example-gradients for each poison, and what the corruption takes.

    Source: Lu, Kamath and Yu 2023 (step 10 for 1000 iterations on logistic regression); Pawelczyk
    et al. 2024, A.1.3, equation (4) and Algorithm 2. Equation (4) prints r = 1, under which the
    gradient on the poisoned set is not 0 at the minimum: we weigh each example once. The public
    code matches one tensor of parameters.
    """

    budget: Budget = Budget(0.015)  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds(box=None)  # noqa: RUF009
    placement: Placement = "add"
    corruption: GradPC = GradPC()  # noqa: RUF009
    parameters: tuple[str, ...] = ()
    steps: int = 1000
    learning_rate: float = 10.0
    chunk: int = 1000

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"corruption": GradPC(radius=0.2, steps=2), "steps": 60},
        effective={
            "bounds": Bounds(),
            "corruption": GradPC(radius=2.0, steps=10, step_size=0.5),
            "steps": 300,
        },
        linear=True,
    )

    def __post_init__(self) -> None:
        check_choice("placement", self.placement, Placement)
        check_at_least(self, 1, "steps", "chunk")
        check_above(self, 0, "learning_rate")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with the poisons; w_low is near `variables`.

        Raises:
          ValueError: a task or variables that do not fit the model, names of no parameter, poisons
            in the place of all examples, or bounds that exclude a training image.
          DivergedError: the residual is no longer finite.
        """
        check_task(task, model)
        normalisation = check_continuous(task.retain, method="GradientCanceling")
        check_variables(variables, model)
        self._check_names(variables.params)
        clean = task.train
        m = self.budget.of(clean.size)
        if self.placement == "perturb" and m == clean.size:
            raise ValueError(
                f"{m} of {clean.size} examples cannot be perturbed in place: none is left whose "
                "gradient could be cancelled; lower the budget, or choose placement='add'"
            )
        base = choose_rows(key, clean.size, m)
        region = self.bounds.region(clean.x[base], normalisation)
        rules = Canceling(model, self.learning_rate, self.steps, self.parameters, self.chunk)
        with Stopwatch() as watch:
            low = self.corruption(model, variables, clean)
            rest = self._rest(clean, base)
            gradient = mean_gradient(model, low, rest.x, rest.y, chunk=self.chunk)
            share = jnp.asarray(m / rest.size, clean.x.dtype)
            balance = Balance(low, gradient, share, region, clean.y[base])
            x, losses = region.base, []
            for step in range(self.steps):
                x, loss = _canceling.step(x, balance, jnp.int32(step), rules=rules)
                losses.append(loss)
            final = jax.block_until_ready(_canceling.judge(x, balance, rules=rules))
        history = jnp.stack(losses)
        norms = np.sqrt(2 * np.array([float(history[0]), float(final)]))
        chosen = _canceling.choose(gradient, self.parameters)
        norms = np.array([_norm(chosen), *norms], np.float32)
        self._judge(norms)
        dataset, is_poison = place(clean, x, clean.y[base], base, self.placement)
        spent = self.corruption.cost(clean.size).example_gradients + rest.size
        cost = Cost(spent + m * (3.0 * self.steps + 1), watch.seconds, watch.compile_seconds)
        extras = {f"target/{name}": leaf for name, leaf in named_leaves(low.params).items()}
        extras["gradient_norm"] = jnp.asarray(norms)
        info = PoisonInfo(base, self.bounds, {"loss": history}, cost, extras=extras)
        return Poisoned(dataset, is_poison, info)

    def _check_names(self, params: Params) -> None:
        known = list(named_leaves(params))
        for name in self.parameters:
            if not any(leaf == name or leaf.startswith(f"{name}/") for leaf in known):
                raise ValueError(
                    f"parameters has {name!r}, which the network has not; it has {', '.join(known)}"
                )

    def _rest(self, clean: Dataset, base: Int[Array, " m"]) -> Dataset:
        """Returns the clean examples that the poisons are trained beside."""
        if self.placement == "add":
            return clean
        return clean.take(np.setdiff1d(np.arange(clean.size), np.asarray(base)))

    def _judge(self, norms: np.ndarray) -> None:
        clean, _, final = norms
        if not np.isfinite(final):
            raise DivergedError(
                f"the residual is {final}; lower learning_rate={self.learning_rate:g}"
            )
        if final > _UNCANCELLED * clean:
            warn(
                f"the poisons leave a gradient of {final:.3g} where the clean examples alone have "
                f"{clean:.3g}: the bad weights are not reached; raise the budget or steps, lower "
                "the corruption's radius, or change learning_rate"
            )


def _norm(leaves: Mapping[str, Array]) -> float:
    return float(np.sqrt(sum(float(jnp.vdot(leaf, leaf)) for leaf in leaves.values())))
