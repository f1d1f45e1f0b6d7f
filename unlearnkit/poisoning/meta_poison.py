"""Perturbed examples that anticipate the next steps of many networks (MetaPoison)."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from unlearnkit.base import Cost, Dataset, Model, Poisoned, Task, Variables
from unlearnkit.costs import Stopwatch
from unlearnkit.poisoning._split import check_share, hold_out
from unlearnkit.poisoning._targets import check_right, check_targets, rows_of_class
from unlearnkit.poisoning._unrolled import AttackData, Unrolling, craft, make_surrogates
from unlearnkit.poisoning.bounds import Bounds
from unlearnkit.poisoning.budget import Budget
from unlearnkit.poisoning.placing import Placement, PoisonInfo, place
from unlearnkit.training import DivergedError
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
class MetaPoison:
    """Perturbs examples, labels kept, by the gradient through K steps of young networks.

    x <- Π(x - Adam(mean_i ∇_x 1/K Σ_k L(w_k^(i)(x)))),   w_{k+1} = w_k - η ∇_w f(x, w_k)

    over networks i of all ages up to a horizon, which go on training meanwhile and begin anew past
    it. f is the cross-entropy of a batch of clean examples and of all poisons in their true
    proportion, in training mode. Without targets L = -CE on held-out examples: an indiscriminate
    attack. With targets L = mean max(0, max_{j≠a} z_j - z_a), a the adversarial class, on these
    examples alone, and poisons are examples of class a.

    Attributes:
      budget: how many poisons.
      bounds: within which they lie.
      placement: `add`, or `perturb` the examples in place.
      targets: rows of `task.validation` that are to be taken for the adversarial class; none for
        an indiscriminate attack.
      adversarial_class: a; None without targets.
      networks: how many.
      steps: of the poisons; the rate falls tenfold after a third and two thirds of them.
      learning_rate: of Adam, in pixel units [0, 1].
      unroll_steps: K.
      batch_size: clean examples of a step of a network.
      network_rate: η.
      advance_steps: steps of each network for each of the poisons.
      horizon: steps after which a network begins anew.
      held_out: the attacker's share of the clean training set, in (0, 1).

    Example:
      attack = poisoning.MetaPoison(budget=poisoning.Budget(0.01), networks=8)
      poisoned = attack(key, model, variables, task)

    Cost: `steps * networks` unrolled trainings of a few steps.

    Source: Huang et al. 2020, Algorithm 1 (24 networks, K = 2, 60 steps, Adam at 200/255, ±8/255),
    without its recolouring; the indiscriminate form of Lu et al. 2022, §5.1. Networks advance by
    `advance_steps`, where theirs advance by an epoch.
    """

    budget: Budget = Budget()  # noqa: RUF009 (frozen, and so safe to share)
    bounds: Bounds = Bounds(radius=8 / 255)  # noqa: RUF009
    placement: Placement = "add"
    targets: tuple[int, ...] = ()
    adversarial_class: int | None = None
    networks: int = 24
    steps: int = 60
    learning_rate: float = 200 / 255
    unroll_steps: int = 2
    batch_size: int = 125
    network_rate: float = 0.1
    advance_steps: int = 10
    horizon: int = 600
    held_out: float = 0.3

    trial: ClassVar[AttackTrial] = AttackTrial(
        small={"networks": 2, "advance_steps": 1, "horizon": 4},
        effective={
            "bounds": Bounds(radius=0.5),
            "placement": "perturb",
            "networks": 8,
            "steps": 60,
            "advance_steps": 5,
            "horizon": 40,
            "learning_rate": 0.5,
            "network_rate": 0.3,
        },
    )

    def __post_init__(self) -> None:
        check_choice("placement", self.placement, Placement)
        check_share(self.held_out)
        if bool(self.targets) != (self.adversarial_class is not None):
            raise ValueError(
                "targets and adversarial_class come together, got "
                f"{len(self.targets)} targets and adversarial_class={self.adversarial_class}"
            )
        counts = ("networks", "steps", "unroll_steps", "batch_size", "advance_steps", "horizon")
        check_at_least(self, 1, *counts)
        check_above(self, 0, "learning_rate", "network_rate")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Poisoned:
        """Returns the poisoned training set; the networks are fresh ones, not `variables`.

        Raises:
          ValueError: a task or variables that do not fit the model, targets that are not there, of
            the adversarial class already or wrong under `variables`, too few examples of that
            class, or bounds that exclude a training image.
          DivergedError: the attacker's loss is no longer finite.
        """
        check_task(task, model)
        normalisation = check_continuous(task.retain, method="MetaPoison")
        check_variables(variables, model)
        if self.targets:
            check_targets(self.targets, self.adversarial_class, task.validation, model.n_classes)
            check_right(np.asarray(self.targets), model, variables, task.validation)
        clean = task.train
        split_key, row_key, network_key, craft_key = jax.random.split(key, 4)
        ours, theirs = hold_out(split_key, clean.size, self.held_out)
        base = self._choose(row_key, clean, np.concatenate([ours, theirs]))
        region = self.bounds.region(clean.x[base], normalisation)
        judged = clean.take(theirs)
        if self.targets:
            judged = task.validation.take(np.asarray(self.targets))
        wanted = -1 if self.adversarial_class is None else self.adversarial_class
        unit = 1 / jnp.asarray(normalisation.std, clean.x.dtype)
        data = AttackData(clean.take(ours), judged, jnp.int32(wanted), region, clean.y[base], unit)
        n, m = clean.size, len(base)
        rules = self._rules(model, n, m, len(ours))
        with Stopwatch() as watch:
            x, losses = region.base, []
            memory = rules.optimizer.init(x)
            surrogates = make_surrogates(
                x, data, jax.random.split(network_key, self.networks), rules=rules
            )
            for step in range(self.steps):
                x, memory, surrogates, loss = craft(
                    x, memory, surrogates, data, jax.random.fold_in(craft_key, step), rules=rules
                )
                losses.append(loss)
            jax.block_until_ready(x)
        history = jnp.stack(losses)
        if not np.all(np.isfinite(history)):
            raise DivergedError(
                f"the attacker's loss is not finite; lower network_rate={self.network_rate:g}"
            )
        dataset, is_poison = place(clean, x, clean.y[base], base, self.placement)
        batch = rules.batch_size + m
        # A step and the derivative through it: a gradient and an HVP.
        young = self.networks * self.horizon // 2 * batch
        unrolled = self.unroll_steps * (3 * batch + judged.size) + self.advance_steps * batch
        examples = young + self.steps * self.networks * unrolled
        cost = Cost(float(examples), watch.seconds, watch.compile_seconds)
        info = PoisonInfo(
            base,
            self.bounds,
            {"attacker_loss": history},
            cost,
            extras={"targets": jnp.asarray(self.targets, jnp.int32)},
        )
        return Poisoned(dataset, is_poison, info)

    def _rules(self, model: Model, n: int, m: int, n_ours: int) -> Unrolling:
        weights = (n / (n + m), m / (n + m)) if self.placement == "add" else (1 - m / n, m / n)
        return Unrolling(
            model,
            *weights,
            self.unroll_steps,
            min(self.batch_size, n_ours),
            self.network_rate,
            self.advance_steps,
            self.horizon,
            _adam(self.learning_rate, self.steps),
        )

    def _choose(self, key: Key[Array, ""], clean: Dataset, order: np.ndarray) -> Array:
        """Returns the rows of the poisons: of the defender's part first, or of the wanted class."""
        m = self.budget.of(clean.size)
        if self.adversarial_class is not None:
            return rows_of_class(key, clean, self.adversarial_class, m)
        return jnp.asarray(np.sort(order[:m]), jnp.int32)


@functools.lru_cache(maxsize=16)
def _adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Returns the poisons' optimiser; equal calls return the same one, for `jax.jit`."""
    drops = {step: 0.1 for step in (steps // 3, 2 * steps // 3) if step > 0}
    return optax.adam(optax.piecewise_constant_schedule(learning_rate, drops))
