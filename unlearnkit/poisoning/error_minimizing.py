"""Noise that makes examples too easy to learn from (EMN, unlearnable examples)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Cost, Model, Poisoned, Task, Variables
from unlearnkit.costs import FORWARD, Stopwatch
from unlearnkit.host import choose_rows
from unlearnkit.poisoning._noise import Noise, Rules, Scope, take_turn
from unlearnkit.poisoning.bounds import Bounds, Region
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place, warn
from unlearnkit.training import DivergedError, Recipe, init_train_state
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import (
    check_above,
    check_at_least,
    check_choice,
    check_continuous,
    check_task,
    check_variables,
)

_NETWORK = Recipe(epochs=30, batch_size=128, learning_rate=0.025)


@dataclasses.dataclass(frozen=True)
class ErrorMinimizing:
    """Perturbs examples so that a network learns the noise in the place of the images.

    min_w min_σ Σ_i CE(f_w(x_i + σ_i), y_i),   ‖σ_i‖_∞ <= radius, in turns:
    `batches` steps of SGD in w;   `steps` of σ <- Π(σ - step_size sign ∇_σ CE) for every poison

    until the network errs on at most `stop_error` of the poisons. The network is a fresh one: the
    trained one already fits its images, which leaves nothing to learn from noise. With
    `adversary` > 0 the robust form: σ is stepped at the worst σ_a of ‖σ_a‖_∞ <= adversary, min_w
    min_σ max_σa CE(f_w(x + σ + σ_a), y), and the network is trained there too.

    Attributes:
      budget: how many examples are perturbed; all by default.
      bounds: box, and radius of the noise in the norm `linf`.
      placement: `perturb`, or `add` to leave the clean examples where they are.
      scope: a noise of its own for each `sample`, or one for each `class`.
      steps: of the noise in each turn.
      step_size: of a step, in the units of `bounds`.
      batches: steps of the network in each turn.
      rounds: the most turns.
      stop_error: of the network on the poisons, in [0, 1].
      adversary: radius of σ_a in the units of `bounds`, less than the noise's; 0 for none.
      adversary_steps: steps of σ_a, each of 2.5 adversary / adversary_steps.
      recipe: how the network is trained; its epochs and schedule count turns.

    Example:
      attack = poisoning.ErrorMinimizing(budget=poisoning.Budget(1.0))
      poisoned = attack(key, model, variables, task)

    Cost: a training in turn with gradients in the inputs.

    Source: Huang et al. 2021 (8/255, 20 steps of 0.8/255, 10 batches, error 0.01); Fu et al. 2022
    for the robust form, without its random image transformations; Lu et al. 2022, equations (43),
    (44).
    """

    budget: Budget = Budget(1.0)  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds(radius=8 / 255)  # noqa: RUF009
    placement: Placement = "perturb"
    scope: Scope = "sample"
    steps: int = 20
    step_size: float = 0.8 / 255
    batches: int = 10
    rounds: int = 100
    stop_error: float = 0.01
    adversary: float = 0.0
    adversary_steps: int = 10
    recipe: Recipe = _NETWORK

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"stop_error": 1.0, "recipe": Recipe(batch_size=20, learning_rate=0.1)},
        effective={
            "budget": Budget(1.0),
            "bounds": Bounds(radius=0.5),
            "steps": 10,
            "rounds": 10,
            "step_size": 0.1,
            "recipe": Recipe(batch_size=20, learning_rate=0.1),
        },
    )

    def __post_init__(self) -> None:
        check_choice("placement", self.placement, Placement)
        check_choice("scope", self.scope, Scope)
        if self.bounds.radius is None or self.bounds.norm != "linf":
            raise ValueError(
                f"bounds need a radius in the norm linf, got radius={self.bounds.radius} in "
                f"{self.bounds.norm}; the noise steps along signs"
            )
        check_at_least(self, 1, "steps", "batches", "rounds", "adversary_steps")
        check_above(self, 0, "step_size")
        if not 0 <= self.stop_error <= 1:
            raise ValueError(f"stop_error must be in [0, 1], got {self.stop_error}")
        if not 0 <= self.adversary < self.bounds.radius:
            raise ValueError(
                f"adversary must be in [0, {self.bounds.radius:g}), the radius of the noise, got "
                f"{self.adversary}"
            )

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the training set with perturbed examples; `variables` are not trained on.

        Raises:
          ValueError: a task or variables that do not fit the model, a batch larger than the
            training set, or bounds that exclude a training image.
          DivergedError: the network's loss is no longer finite.
        """
        check_task(task, model)
        normalisation = check_continuous(task.retain, method="ErrorMinimizing")
        check_variables(variables, model)
        clean = task.train
        m = self.budget.of(clean.size)
        self.recipe.steps_per_epoch(clean.size)
        row_key, init_key, order_key, step_key = jax.random.split(key, 4)
        base = choose_rows(row_key, clean.size, m)
        region = self.bounds.region(clean.x[base], normalisation)
        rules = self._rules(model)
        noise = Noise(region.base, self._start(region, model.n_classes))
        history: dict[str, list[float]] = {"loss": [], "error": []}
        with Stopwatch() as watch:
            state = init_train_state(self.recipe, self.batches, jax.jit(model.init)(init_key))
            for turn in range(self.rounds):
                state, noise, loss, wrong = take_turn(
                    state,
                    noise,
                    clean,
                    base,
                    region,
                    self._unit(region),
                    order_key,
                    step_key,
                    jnp.int32(turn),
                    rules=rules,
                )
                history["loss"].append(float(loss))
                history["error"].append(int(wrong) / m)
                if not np.isfinite(history["loss"][-1]):
                    raise DivergedError(
                        f"training diverged in turn {turn + 1}; lower the recipe's learning_rate="
                        f"{self.recipe.learning_rate:g}"
                    )
                if history["error"][-1] <= self.stop_error:
                    break
        if history["error"][-1] > self.stop_error:
            warn(
                f"after {self.rounds} rounds the network still errs on "
                f"{history['error'][-1]:.1%} of the poisons, not {self.stop_error:.1%}; raise "
                "rounds or batches"
            )
        dataset, is_poison = place(clean, noise.x, clean.y[base], base, self.placement)
        worst = self.adversary_steps if self.adversary else 0
        turn_cost = float(self.batches * self.recipe.batch_size * (1 + worst))
        turn_cost += m * (self.steps * (1 + worst) + FORWARD)
        cost = Cost(len(history["loss"]) * turn_cost, watch.seconds, watch.compile_seconds)
        curves = {name: jnp.asarray(values) for name, values in history.items()}
        return Poisoned(dataset, is_poison, PoisonInfo(base, self.bounds, curves, cost))

    def _rules(self, model: Model) -> Rules:
        return Rules(
            model,
            self.recipe,
            self.scope,
            self.steps,
            self.step_size,
            self.batches,
            self.adversary,
            self.adversary_steps,
        )

    def _start(self, region: Region, n_classes: int) -> Array:
        """Returns the noise shared by each class; of no entry where samples have their own."""
        rows = n_classes if self.scope == "class" else 0
        return jnp.zeros((rows, *region.base.shape[1:]), region.base.dtype)

    def _unit(self, region: Region) -> Array:
        """Returns what one unit of `bounds` is in the units of the network."""
        return 1 / region.scale
