"""Descent on the retain set with ascent on the forget set (NegGrad+)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.base import (
    Dataset,
    Model,
    OnEpoch,
    OnSnapshot,
    Params,
    State,
    Task,
    Unlearned,
    Variables,
)
from unlearnkit.host.order import cycled_rows, epoch_rows
from unlearnkit.host.random import host_key
from unlearnkit.host.reserve import reserve
from unlearnkit.training import Recipe, cross_entropy
from unlearnkit.training.step import Metrics, forward_augmented
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning._passes import Pass, TwoSetSettings, descend_passes
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True)
class NegGradPlus(TwoSetSettings):
    """Descends the retain set's cross-entropy while ascending the forget set's.

    w <- w - η (∇[β CE_retain(w) - (1 - β) CE_forget(w)] + λ w), BatchNorm in evaluation mode.

    Each step zips a retain batch with a forget batch. An epoch is a pass over the retain set; the
    forget set is cycled through, in a fresh order each time, and where the retain set ends first
    the next epoch goes on with it.

    Attributes:
      epochs: passes over the retain set.
      beta: β in (0, 1], the weight of the retain set's loss.

    Example:
      unlearn = unlearning.NegGradPlus(epochs=5, beta=0.95)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `2 * epochs * retain` example-gradients.

    Source: Kurmanji et al. 2023; defaults of Pawelczyk et al. 2024, A.2.7 (β = 0.999, the rest as
    GD in A.2.1). The reference code has β = 0.95 for 10 epochs on small problems, 0.9999 for 5
    against membership inference, both with learning rate 0.01 and no momentum.
    """

    beta: float = 0.999

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        small={"beta": 0.9},
        effective={"epochs": 5, "learning_rate": 0.05, "beta": 0.9},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta <= 1:
            raise ValueError(f"beta must be in (0, 1], got {self.beta}")

    def recipe(self) -> Recipe:
        """Returns the recipe of these settings."""
        return dataclasses.replace(super().recipe(), frozen_state=True)

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
        on_snapshot: OnSnapshot | None = None,
    ) -> Unlearned:
        """Returns the network after the two-sided descent.

        Raises:
          ValueError: a task or variables that do not fit the model, or a batch larger than its set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        recipe, forget_recipe, adapted = self.fitted_pair(variables, task)
        batch, forget_batch = recipe.batch_size, forget_recipe.batch_size
        objective = _Difference(model, recipe, self.beta, 1 - self.beta, batch)
        n_retain, n_forget = task.retain.size, task.forget.size
        steps = n_retain // batch
        cycle_key, run_key = host_key(key).split()
        held = reserve(task.train)

        def plan(epoch: int) -> list[Pass]:
            retain_key, step_key = run_key.fold_in(epoch).split()
            retain = epoch_rows(retain_key, 0, n_retain, batch)
            forget = cycled_rows(cycle_key, epoch * steps, n_forget, forget_batch, steps)
            pairs = np.concatenate([retain, n_retain + forget], axis=1)
            return [Pass(objective, held, pairs, step_key.typed())]

        return descend_passes(
            plan,
            recipe,
            variables,
            steps_per_epoch=steps,
            example_gradients=self.example_gradients(variables, task),
            adapted=adapted,
            on_epoch=on_epoch,
            on_snapshot=on_snapshot,
        )

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        recipe, forget_recipe, _ = self.fitted_pair(variables, task)
        steps = recipe.steps_per_epoch(task.retain.size)
        return float(recipe.epochs * steps * (recipe.batch_size + forget_recipe.batch_size))


@dataclasses.dataclass(frozen=True)
class _Difference:
    """β CE(first `n_retain` examples of the batch) - (1 - β) CE(the others).

    Attributes:
      retain_weight: β.
      forget_weight: 1 - β; computed on the host, where it does not lose digits.
    """

    NUMBERS: ClassVar[tuple[str, ...]] = ("retain_weight", "forget_weight")

    model: Model
    recipe: Recipe
    retain_weight: float | Float[Array, ""]
    forget_weight: float | Float[Array, ""]
    n_retain: int

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: None = None,
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        variables = Variables(params, state)
        logits, new_state = forward_augmented(self.model, self.recipe, variables, batch, key)
        n, smoothing = self.n_retain, self.recipe.label_smoothing
        retain = cross_entropy(logits[:n], batch.y[:n], smoothing)
        forget = cross_entropy(logits[n:], batch.y[n:], smoothing)
        accuracy = jnp.mean(jnp.argmax(logits[:n], -1) == batch.y[:n])
        metrics = {"loss": retain, "accuracy": accuracy, "forget_loss": forget}
        weighted = self.retain_weight * retain - self.forget_weight * forget
        return weighted, (new_state, metrics)
