"""Poisons by the gradient through the defender's last steps of training (back-gradient)."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from unlearnkit.base import Cost, Dataset, Model, Params, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.poisoning._ascent import climb
from unlearnkit.poisoning._split import check_share, hold_out
from unlearnkit.poisoning.bounds import Bounds, Region
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.label_flip import check_flippable
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place
from unlearnkit.training import DivergedError, cross_entropy
from unlearnkit.trials import AttackTrial
from unlearnkit.validation import (
    check_above,
    check_at_least,
    check_choice,
    check_continuous,
    check_task,
    check_variables,
)


@dataclasses.dataclass(frozen=True)
class BackGradient:
    """Moves label-flipped examples up the validation loss of the network that trains on them.

    x <- Π(x + step_size g / ‖g‖),   g = d/dx ℓ(w_T(x)),   w_{t+1} = w_t - η ∇_w f(w_t)

    with f the cross-entropy of clean examples and poisons so far in their true proportion, ℓ that
    of held-out clean examples, and w_0 the trained weights. Poisons are made one group after
    another, each against all before it.

    Attributes:
      budget: how many poisons.
      bounds: within which they lie.
      placement: how they enter the training set.
      group: poisons made together; 1 as published.
      steps: moves of each poison.
      step_size: length of a move, in units of the network (l2).
      unroll_steps: T, full-batch steps of the defender.
      learning_rate: η.
      held_out: the attacker's share of the clean training set, in (0, 1).

    Example:
      attack = poisoning.BackGradient(budget=poisoning.Budget(count=10), steps=20)
      poisoned = attack(key, model, variables, task)

    Cost: for each step a training of the classifier, and the way back through it.

    Source: Muñoz-González et al. 2017, Algorithm 2; Lu et al. 2022, equations (10), (11) and A.1.
    They run the training backwards to save memory; we keep the T weights, recompute what is between
    them, and so take the exact gradient. Their poisons begin at validation points, ours at points
    of the training part, which every attack here shares.
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds()  # noqa: RUF009
    placement: Placement = "add"
    group: int = 1
    steps: int = 10
    step_size: float = 0.5
    unroll_steps: int = 100
    learning_rate: float = 0.1
    held_out: float = 0.3

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"group": 3, "unroll_steps": 3},
        effective={
            "group": 10,
            "steps": 15,
            "step_size": 0.3,
            "unroll_steps": 60,
            "learning_rate": 1.0,
        },
    )

    def __post_init__(self) -> None:
        check_choice("placement", self.placement, Placement)
        check_share(self.held_out)
        check_at_least(self, 1, "group", "steps", "unroll_steps")
        check_above(self, 0, "step_size", "learning_rate")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the poisoned training set; the defender starts at `variables`.

        Raises:
          ValueError: a task or variables that do not fit the model, one class only, or bounds that
            exclude a training image.
          DivergedError: the validation loss is no longer finite.
        """
        check_task(task, model)
        normalisation = check_continuous(task.retain, method="BackGradient")
        check_variables(variables, model)
        check_flippable(model)
        clean = task.train
        m = self.budget.of(clean.size)
        split_key, label_key = jax.random.split(key)
        ours, theirs = hold_out(split_key, clean.size, self.held_out)
        base = jnp.asarray(np.sort(np.concatenate([ours, theirs])[:m]), jnp.int32)
        region = self.bounds.region(clean.x[base], normalisation)
        shift = jax.random.randint(label_key, (m,), 1, model.n_classes)
        y = (clean.y[base] + shift) % model.n_classes
        size = jnp.asarray(clean.size, clean.x.dtype)
        setting = Setting(clean.take(ours), clean.take(theirs), region, y, variables, size)
        with Stopwatch() as watch:
            x, losses = self._make(model, setting)
            jax.block_until_ready(x)
        if not np.all(np.isfinite(losses)):
            raise DivergedError(
                "the validation loss is not finite; lower learning_rate="
                f"{self.learning_rate:g} or unroll_steps={self.unroll_steps}"
            )
        dataset, is_poison = place(clean, x, y, base, self.placement)
        # A step of the defender costs a gradient, and its derivative two more and a recomputation.
        groups = -(-m // self.group)
        passes = groups * self.steps * self.unroll_steps * 4 * (len(ours) + m)
        examples = passes + groups * self.steps * len(theirs)
        cost = Cost(float(examples), watch.seconds, watch.compile_seconds)
        history = {"attacker_loss": jnp.concatenate(losses)}
        return Poisoned(dataset, is_poison, PoisonInfo(base, self.bounds, history, cost))

    def _make(self, model: Model, setting: Setting) -> tuple[Array, list[Array]]:
        """Returns all poisons, and the validation loss before each move."""
        m = setting.labels.shape[0]
        x, losses = setting.region.base, []
        for start in range(0, m, self.group):
            end = min(start + self.group, m)
            x, loss = move_group(
                x,
                jnp.arange(start, end),
                jnp.arange(m) < end,
                setting,
                model=model,
                steps=self.steps,
                step_size=self.step_size,
                unroll_steps=self.unroll_steps,
                rate=self.learning_rate,
            )
            losses.append(loss)
        return x, losses


class Setting(NamedTuple):
    """What the poisons are made against.

    Attributes:
      clean: the defender's part of the clean training set.
      held_out: the attacker's part.
      region: [m] where the poisons may lie.
      labels: [m] of the poisons, flipped.
      variables: the weights before training on the poisons.
      size: of the whole clean training set, which the defender's part stands for.
    """

    clean: Dataset
    held_out: Dataset
    region: Region
    labels: Int[Array, " m"]
    variables: Variables
    size: Float[Array, ""]


def trained_loss(
    x: Float[Array, "m ..."],
    active: Bool[Array, " m"],
    setting: Setting,
    *,
    model: Model,
    unroll_steps: int,
    rate: float,
) -> Float[Array, ""]:
    """Returns the held-out loss after T steps on the clean examples and the active poisons.

    Args:
      x: poisons.
      active: which of them the defender trains on.
      setting: the rest.
      model: the network.
      unroll_steps: T.
      rate: η.
    """
    n, state = setting.size, setting.variables.state

    def apply(w: Params, inputs: Array) -> Array:
        return model.apply(Variables(w, state), inputs)

    def loss(w: Params) -> Array:
        good = n * cross_entropy(apply(w, setting.clean.x), setting.clean.y)
        bad = optax.softmax_cross_entropy_with_integer_labels(apply(w, x), setting.labels)
        return (good + jnp.where(active, bad, 0).sum()) / (n + active.sum())

    @jax.checkpoint
    def descend(w: Params, _: None) -> tuple[Params, None]:
        return jax.tree.map(lambda v, g: v - rate * g, w, jax.grad(loss)(w)), None

    w, _ = jax.lax.scan(descend, setting.variables.params, length=unroll_steps)
    return cross_entropy(apply(w, setting.held_out.x), setting.held_out.y)


@partial(jax.jit, static_argnames=("model", "steps", "step_size", "unroll_steps", "rate"))
def move_group(
    x: Float[Array, "m ..."],
    rows: Int[Array, " g"],
    active: Bool[Array, " m"],
    setting: Setting,
    *,
    model: Model,
    steps: int,
    step_size: float,
    unroll_steps: int,
    rate: float,
) -> tuple[Float[Array, "m ..."], Float[Array, " steps"]]:
    """Returns the poisons after some of them were moved, and the loss before each move.

    Args:
      x: [m, ...] all poisons.
      rows: [g] which are moved.
      active: [m] which the defender trains on.
      setting: what they are made against.
      model: the defender's network.
      steps: moves.
      step_size: of a move, in units of the network's input.
      unroll_steps: steps of the defender's training that a move sees through.
      rate: the defender's learning rate.
    """
    region = setting.region.take(rows)
    settings: dict[str, Any] = {"model": model, "unroll_steps": unroll_steps, "rate": rate}

    def objective(moving: Array) -> tuple[Array, None]:
        return trained_loss(x.at[rows].set(moving), active, setting, **settings), None

    moved, (losses, _) = climb(objective, x[rows], region, steps=steps, step_size=step_size)
    return x.at[rows].set(moved), losses
