"""Epochs over the forget set whose batches each meet a batch of the retain set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
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
from unlearnkit.host.order import cycled_rows, whole_rows
from unlearnkit.host.random import host_key
from unlearnkit.host.reserve import reserve
from unlearnkit.training import Recipe
from unlearnkit.training.step import Metrics, example_losses, forward_augmented
from unlearnkit.unlearning._passes import (
    Pass,
    descend_passes,
    gradients_on_forget,
    steps_of_whole_pass,
)
from unlearnkit.unlearning._sgd import SgdSettings
from unlearnkit.validation import check_task, check_variables

ForgetLoss = Callable[[Float[Array, " m"], Float[Array, " m"]], Float[Array, ""]]
"""(each forget example's cross-entropy, the same of the original network) -> what is descended."""


@dataclasses.dataclass(frozen=True)
class ForgetPacedSettings(SgdSettings):
    """Descends a loss of the forget set, and the retain set's cross-entropy beside it.

    Attributes:
      epochs: passes over the forget set; each uses every example, see `SgdSettings` for the rest.
      batch_size: forget examples a step, at most the size of the forget set; each step has as many
        of the retain set, which is cycled through.
      retain_weight: of the retain set's cross-entropy, >= 0.
    """

    epochs: int = 5
    retain_weight: float = 1.0

    on_forget: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.retain_weight >= 0:
            raise ValueError(f"retain_weight must be >= 0, got {self.retain_weight}")

    def recipe(self) -> Recipe:
        """Returns the recipe of these settings."""
        return dataclasses.replace(super().recipe(), frozen_state=True)

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        recipe, _ = self.fitted(variables, task.forget)
        return 2 * gradients_on_forget(recipe, task.forget.size)


def descend_paced(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    task: Task,
    settings: ForgetPacedSettings,
    forget_loss: ForgetLoss,
    *,
    losses: Float[np.ndarray, " m"] | None = None,
    on_epoch: OnEpoch | None = None,
    on_snapshot: OnSnapshot | None = None,
) -> Unlearned:
    """Returns the network after descending a loss of the forget set beside the retain set's.

    Args:
      key: of the order of both sets and of the steps.
      model: the network.
      variables: where to start.
      task: what to forget and what to keep.
      settings: how.
      forget_loss: of the forget examples of a batch; a hashable value.
      losses: [m] cross-entropies of the original network on the forget set, for `forget_loss`; None
        gives it zeros.
      on_epoch: called after each epoch.
      on_snapshot: called with the network after each epoch.

    Raises:
      ValueError: a task or variables that do not fit the model, or a batch larger than its set.
      DivergedError: the loss is no longer finite.
    """
    check_task(task, model)
    check_variables(variables, model)
    recipe, adapted = settings.fitted(variables, task.forget)
    batch, n_retain, m = recipe.batch_size, task.retain.size, task.forget.size
    if batch > n_retain:
        raise ValueError(
            f"batch_size={batch} is larger than the data ({n_retain} retain examples); choose "
            f"batch_size <= {n_retain}"
        )
    steps = steps_of_whole_pass(m, batch)
    order_key, cycle_key, step_key = host_key(key).split(3)
    # Rows stand in for labels, so that a step finds the original network's losses.
    known = np.zeros(n_retain + m, np.float32)
    if losses is not None:
        known[n_retain:] = losses
    train = task.train
    context = reserve((train.y, known))
    held = reserve(train._replace(y=jax.device_put(np.arange(train.size, dtype=np.int32))))
    objective = _PacedLoss(model, recipe, forget_loss, settings.retain_weight, batch)

    def plan(epoch: int) -> list[Pass]:
        forget = n_retain + whole_rows(order_key, epoch, m, batch)
        retain = cycled_rows(cycle_key, epoch * steps, n_retain, batch, steps)
        rows = np.concatenate([retain, forget], axis=1)
        return [Pass(objective, held, rows, step_key.fold_in(epoch).typed(), context)]

    return descend_passes(
        plan,
        recipe,
        variables,
        steps_per_epoch=steps,
        example_gradients=2 * gradients_on_forget(recipe, m),
        adapted=adapted,
        on_epoch=on_epoch,
        on_snapshot=on_snapshot,
    )


@dataclasses.dataclass(frozen=True)
class _PacedLoss:
    """L_forget(last examples of the batch) + λ CE(its first `n_retain`)."""

    NUMBERS: ClassVar[tuple[str, ...]] = ("retain_weight",)

    model: Model
    recipe: Recipe
    forget_loss: ForgetLoss
    retain_weight: float | Float[Array, ""]
    n_retain: int

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: tuple[Array, Array],
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        labels, known = (part[batch.y] for part in context)
        n, variables = self.n_retain, Variables(params, state)
        logits, new_state = forward_augmented(self.model, self.recipe, variables, batch, key)
        losses = example_losses(logits, labels, self.recipe.label_smoothing)
        retain, forget = losses[:n].mean(), self.forget_loss(losses[n:], known[n:])
        accuracy = jnp.mean(jnp.argmax(logits[:n], -1) == labels[:n])
        metrics = {
            "loss": retain, "accuracy": accuracy, "forget_loss": losses[n:].mean()
        }  # fmt: skip
        return forget + self.retain_weight * retain, (new_state, metrics)
