"""Preference against the forget set's labels, bounded where ascent is not (NPO)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from unlearnkit.base import Model, OnEpoch, OnSnapshot, Task, Unlearned, Variables
from unlearnkit.costs import FORWARD, Stopwatch
from unlearnkit.kernels import cross_entropy_losses
from unlearnkit.training import predict
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning._forget_paced import ForgetPacedSettings, descend_paced
from unlearnkit.unlearning._sgd import with_preparation
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True)
class NegativePreference(ForgetPacedSettings):
    """Makes the forget set's labels less likely than the original network has them.

    L = 2/β mean_forget log(1 + (p_w(y|x) / p_0(y|x))^β) + λ_r CE_retain(w)

    with p_0 of the original network. The gradient is that of ascent, times 2 r^β / (1 + r^β) with r
    = p_w / p_0: 1 at the start, and less the more an example is forgotten, so that the descent does
    not run away. β -> 0 is gradient ascent; `retain_weight` 0 is NPO alone.

    Attributes:
      epochs: passes over the forget set.
      retain_weight: λ_r.
      beta: β > 0.

    Example:
      unlearn = unlearning.NegativePreference(epochs=5, beta=0.1)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `(2 * epochs + 1/3) * forget` example-gradients.

    Source: Zhang et al. 2024 (negative preference optimization), equation (3) and §4: β = 0.1, and
    λ_r = 1 as in their NPO+RT.
    """

    beta: float = 0.1

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        small={"batch_size": 16},
        effective={"epochs": 5, "batch_size": 10, "learning_rate": 0.01},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"beta must be finite and > 0, got {self.beta}")

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
        """Returns the network after the descent.

        Raises:
          ValueError: a task or variables that do not fit the model, or a batch larger than its set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        with Stopwatch() as watch:
            logits = predict(model, variables, task.forget.x)
            losses = np.asarray(cross_entropy_losses(logits, task.forget.y))
        unlearned = descend_paced(
            key, model, variables, task, self, _Preference(self.beta),
            losses=losses, on_epoch=on_epoch, on_snapshot=on_snapshot,
        )  # fmt: skip
        return with_preparation(unlearned, task.forget.size * FORWARD, watch)

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        return super().example_gradients(variables, task) + task.forget.size * FORWARD


@dataclasses.dataclass(frozen=True)
class _Preference:
    """2/β mean log(1 + (p_w / p_0)^β), from the cross-entropies -log p."""

    beta: float

    def __call__(
        self, losses: Float[Array, " m"], original: Float[Array, " m"]
    ) -> Float[Array, ""]:
        ratio = self.beta * (original - losses)
        found: Array = 2 / self.beta * jnp.mean(jax.nn.softplus(ratio))
        return found
