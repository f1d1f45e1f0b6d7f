"""Ascent on the forget set with descent on as much of the retain set (gradient difference)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxtyping import Array, Float, Key

from unlearnkit.base import Model, OnEpoch, OnSnapshot, Task, Unlearned, Variables
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning._forget_paced import ForgetPacedSettings, descend_paced


@dataclasses.dataclass(frozen=True)
class GradientDifference(ForgetPacedSettings):
    """Ascends the forget set's cross-entropy while descending the retain set's.

    w <- w - η (∇[-CE_forget(w) + λ_r CE_retain(w)] + λ w), BatchNorm in evaluation mode.

    `NegGradPlus` has the same two terms in a pass over the retain set; here an epoch is a pass over
    the forget set, each of whose batches meets one of the retain set.

    Attributes:
      epochs: passes over the forget set.
      retain_weight: λ_r.

    Example:
      unlearn = unlearning.GradientDifference(epochs=5, learning_rate=1e-4)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `2 * epochs * forget` example-gradients.

    Source: Liu et al. 2022b (continual learning and private unlearning); as Maini et al. 2024
    (TOFU), §3, call and run it on language models: 5 epochs over the forget set, weight 1.
    """

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        small={"batch_size": 16},
        effective={"epochs": 5, "batch_size": 10, "learning_rate": 0.01},
    )

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
        return descend_paced(
            key, model, variables, task, self, _Ascent(),
            on_epoch=on_epoch, on_snapshot=on_snapshot,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Ascent:
    """-CE."""

    def __call__(
        self, losses: Float[Array, " m"], original: Float[Array, " m"]
    ) -> Float[Array, ""]:
        return -losses.mean()
