"""Poisons that make bad weights a stationary point of training (gradient canceling)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from unlearnkit.base import Cost, Dataset, Model, Params, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.host import choose_rows
from unlearnkit.poisoning import _canceling
from unlearnkit.poisoning._canceling import Balance, Canceling, Descent
from unlearnkit.poisoning._gradients import mean_gradient
from unlearnkit.poisoning._targets import predicted_classes
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.grad_pc import GradPC
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place, warn
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


class _Aim(NamedTuple):
    """Bad weights, their clean gradient, and how far, reachable and bad they are."""

    low: Variables
    gradient: Params
    radius: float
    threshold: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class GradientCanceling:
    """Perturbs copies of examples until bad weights have no gradient on clean and poisoned data.

    min_Δ 1/2 ‖g_c + r g_p(Δ)‖²,   g_c = mean_clean ∇_w CE(w_low),
    g_p = mean_poisons ∇_w CE(w_low; x_i + Δ_i, y_i),   r = poisons for each clean example

    The poisons keep their labels. `info.extras` has `target/<name>`, the bad weights w_low;
    `gradient_norm`: ‖g_c‖, ‖g_c + r g_p‖ with the base images, and at the end; `threshold`: the
    least r by which the last layer can be stationary there, see Lu et al. 2023, and
    `target_accuracy` on the clean training set.

    Bad weights that are far from the trained ones cannot be reached, and near ones are not bad.
    With `radii` the corruption's radius is the largest of them whose threshold is at most r;
    `info.extras` then has `radii`, `radii_threshold` and `radii_accuracy`.

    Attributes:
      budget: how many poisons.
      bounds: within which they lie; none by default, as in Pawelczyk et al. 2024.
      placement: `add`; or `perturb` the examples in place, g_c then being that of the others.
      corruption: how w_low is made of the trained weights.
      radii: of the corruption, to choose from by reachability; none takes its own.
      parameters: names of the parameters whose gradient is cancelled, as `classifier` or
        `fc1/kernel`; all where empty.
      optimizer: `sgd`, plain gradient descent, which cancels what is linear; or `adam`.
      steps: of the descent.
      learning_rate: η, which falls along a cosine to 0. Of sgd in x_i <- Π(x_i - η_t m ∂L/∂x_i), m
        the number of poisons, None for 20 n / r, the step of the public code; of adam in the units
        of the network, where it must be given.
      chunk: examples at a time.

    Example:
      attack = poisoning.GradientCanceling(budget=poisoning.Budget(0.03), steps=500)
      poisoned = attack(key, model, variables, task)

    Cost: `3 * steps` example-gradients for each poison, and what the corruption takes.

    Source: Lu, Kamath and Yu 2023 (step 10 for 1000 iterations on logistic regression, on the
    square of summed gradients: 20 n / r in our units); Pawelczyk et al. 2024, A.1.3, equation (4)
    and Algorithm 2. Equation (4) prints r = 1, under which the gradient on the poisoned set is not
    0 at the minimum: we weigh each example once. The public code matches one tensor of parameters.
    Without bounds, poisons act by their size as well: `SameNormControl` tells how much.
    """

    budget: Budget = Budget(0.015)  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds(box=None)  # noqa: RUF009
    placement: Placement = "add"
    corruption: GradPC = GradPC()  # noqa: RUF009
    radii: tuple[float, ...] = ()
    parameters: tuple[str, ...] = ()
    optimizer: Descent = "sgd"
    steps: int = 1000
    learning_rate: float | None = 10.0
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
        check_choice("optimizer", self.optimizer, Descent)
        check_at_least(self, 1, "steps", "chunk")
        if self.learning_rate is not None:
            check_above(self, 0, "learning_rate")
        elif self.optimizer == "adam":
            raise ValueError("learning_rate must be given for adam; None is the public step of sgd")
        for radius in self.radii:
            dataclasses.replace(self.corruption, radius=radius)

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
        with Stopwatch() as watch:
            rest = self._rest(clean, base)
            share = m / rest.size
            aims = [self._aim(radius, model, variables, clean, rest) for radius in self._radii]
            aim = self._choose(aims, share)
            balance = Balance(
                aim.low, aim.gradient, jnp.asarray(share, clean.x.dtype), region, clean.y[base]
            )
            rate = 20 * rest.size / share if self.learning_rate is None else self.learning_rate
            rules = Canceling(model, self.optimizer, rate, self.steps, self.parameters, self.chunk)
            x, memory, losses = region.base, rules.direction.init(region.base), []
            for step in range(self.steps):
                x, memory, loss = _canceling.step(x, memory, balance, jnp.int32(step), rules=rules)
                losses.append(loss)
            final = jax.block_until_ready(_canceling.judge(x, balance, rules=rules))
        history = jnp.stack(losses)
        norms = np.sqrt(2 * np.array([float(history[0]), float(final)]))
        chosen = _canceling.choose(aim.gradient, self.parameters)
        norms = np.array([_norm(chosen), *norms], np.float32)
        self._judge(norms, rate)
        dataset, is_poison = place(clean, x, clean.y[base], base, self.placement)
        spent = len(aims) * (self.corruption.cost(clean.size).example_gradients + rest.size)
        cost = Cost(spent + m * (3.0 * self.steps + 1), watch.seconds, watch.compile_seconds)
        extras = {f"target/{name}": leaf for name, leaf in named_leaves(aim.low.params).items()}
        extras["gradient_norm"] = jnp.asarray(norms)
        extras["threshold"] = jnp.float32(aim.threshold)
        extras["target_accuracy"] = jnp.float32(aim.accuracy)
        if self.radii:
            extras["radii"] = jnp.asarray(self.radii, jnp.float32)
            extras["radii_threshold"] = jnp.asarray([a.threshold for a in aims], jnp.float32)
            extras["radii_accuracy"] = jnp.asarray([a.accuracy for a in aims], jnp.float32)
        info = PoisonInfo(base, self.bounds, {"loss": history}, cost, extras=extras)
        return Poisoned(dataset, is_poison, info)

    @property
    def _radii(self) -> tuple[float, ...]:
        return self.radii or (self.corruption.radius,)

    def _aim(
        self,
        radius: float,
        model: Model,
        variables: Variables,
        clean: Dataset,
        rest: Dataset,
    ) -> _Aim:
        """Returns the bad weights at a radius, and what is known of them."""
        low = dataclasses.replace(self.corruption, radius=radius)(model, variables, clean)
        gradient = mean_gradient(model, low, rest.x, rest.y, chunk=self.chunk)
        right = predicted_classes(model, low, clean) == np.asarray(clean.y)
        least = _canceling.threshold(model, low, gradient)
        return _Aim(low, gradient, radius, least, float(right.mean()))

    def _choose(self, aims: Sequence[_Aim], share: float) -> _Aim:
        """Returns the furthest weights that this share of poisons can reach."""
        if not self.radii:
            return aims[0]
        reached = [aim for aim in aims if aim.threshold <= share]
        if reached:
            return max(reached, key=lambda aim: aim.radius)
        nearest = min(aims, key=lambda aim: aim.threshold)
        warn(
            f"no radius of {self.radii} is reached: {share:.3g} poisons for each clean example "
            f"are fewer than the {nearest.threshold:.3g} that radius {nearest.radius:g} takes, "
            "which was used; raise the budget, or try smaller radii"
        )
        return nearest

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

    def _judge(self, norms: np.ndarray, rate: float) -> None:
        clean, _, final = norms
        if not np.isfinite(final):
            raise DivergedError(f"the residual is {final}; lower learning_rate={rate:g}")
        if final > _UNCANCELLED * clean:
            warn(
                f"the poisons leave a gradient of {final:.3g} where the clean examples alone have "
                f"{clean:.3g}: the bad weights are not reached; raise the budget or steps, lower "
                "the corruption's radius, or change learning_rate"
            )


def _norm(leaves: Mapping[str, Array]) -> float:
    return float(np.sqrt(sum(float(jnp.vdot(leaf, leaf)) for leaf in leaves.values())))
