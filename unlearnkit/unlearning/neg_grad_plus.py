"""Descent on the retain set with ascent on the forget set (NegGrad+)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import (
    Dataset,
    Model,
    OnEpoch,
    Params,
    State,
    Task,
    Unlearned,
    Variables,
)
from unlearnkit.training import (
    Objective,
    Recipe,
    TrainState,
    cross_entropy,
    epoch_batches,
    run_epoch,
)
from unlearnkit.training.step import Metrics, augment, forward_train
from unlearnkit.unlearning._passes import TwoSetSettings, cycled_batches, descend_passes
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

    Source: Kurmanji et al. 2023; defaults of Pawelczyk et al. 2024, A.2.7 (β = 0.999, the rest as
    GD in A.2.1). The reference code has β = 0.95 for 10 epochs on small problems, 0.9999 for 5
    against membership inference, both with learning rate 0.01 and no momentum.
    """

    beta: float = 0.999

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
        objective = _Difference(model, recipe, self.beta, batch)
        run = _ZippedEpoch(objective, recipe, task.retain.size, forget_batch)
        pairs = task.retain.size // batch * (batch + forget_batch)
        cycle_key, run_key = jax.random.split(key)
        return descend_passes(
            run_key,
            run,
            recipe,
            variables,
            _Pairs(task.train, cycle_key),
            example_gradients=float(self.epochs * pairs),
            adapted=adapted,
            on_epoch=on_epoch,
        )


class _Pairs(NamedTuple):
    """Retain, then forget, and the key of all passes over the latter."""

    dataset: Dataset
    cycle_key: Key[Array, ""]


@dataclasses.dataclass(frozen=True)
class _Difference:
    """β CE(first `n_retain` examples of the batch) - (1 - β) CE(the others)."""

    model: Model
    recipe: Recipe
    beta: float
    n_retain: int

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: None = None,
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        augment_key, dropout_key = jax.random.split(key)
        x = augment(augment_key, batch, self.recipe)
        logits, new_state = forward_train(
            self.model, self.recipe, Variables(params, state), x, dropout_key
        )
        n, smoothing = self.n_retain, self.recipe.label_smoothing
        retain = cross_entropy(logits[:n], batch.y[:n], smoothing)
        forget = cross_entropy(logits[n:], batch.y[n:], smoothing)
        accuracy = jnp.mean(jnp.argmax(logits[:n], -1) == batch.y[:n])
        metrics = {"loss": retain, "accuracy": accuracy, "forget_loss": forget}
        return self.beta * retain - (1 - self.beta) * forget, (new_state, metrics)


@dataclasses.dataclass(frozen=True)
class _ZippedEpoch:
    """A pass over the retain set, each batch beside the next one of the cycled forget set."""

    objective: Objective
    recipe: Recipe
    n_retain: int
    forget_batch: int

    def __call__(
        self, state: TrainState, data: _Pairs, key: Key[Array, ""], epoch: Int[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        dataset, cycle_key = data
        retain_key, step_key = jax.random.split(jax.random.fold_in(key, epoch))
        retain = epoch_batches(retain_key, 0, self.n_retain, self.recipe.batch_size)
        steps, n_forget = retain.shape[0], dataset.size - self.n_retain
        forget = cycled_batches(cycle_key, epoch * steps, n_forget, self.forget_batch, steps)
        pairs = jnp.concatenate([retain, self.n_retain + forget], axis=1)
        return run_epoch(self.objective, self.recipe, state, dataset, pairs, step_key)
