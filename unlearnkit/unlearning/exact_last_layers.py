"""Retraining the last layers from scratch (EU-k)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
from jaxtyping import Array, Key

from unlearnkit.base import Model, OnEpoch, OnSnapshot, Task, Unlearned, Variables
from unlearnkit.models.fresh import check_fresh
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning._last_layers import (
    LastLayersSettings,
    descend_last_layers,
    replace,
    select_last_layers,
)
from unlearnkit.validation import check_task, check_variables


@dataclasses.dataclass(frozen=True)
class ExactLastLayers(LastLayersSettings):
    """Resets the last k layers to a fresh initialisation and trains them on the retain set.

    w_last ~ init, then w_last <- w_last - η (∇CE_retain(w) + λ w_last); all other weights keep
    their bits.

    BatchNorm is in training mode throughout; the running statistics of the last k layers are reset
    and move, those of the other layers stay.

    Attributes:
      epochs: passes over the retain set.

    Example:
      unlearn = unlearning.ExactLastLayers(k=2, epochs=5)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `epochs * retain` example-gradients.

    Source: EU-k of Goel et al. 2022; defaults of Pawelczyk et al. 2024, A.2.4 (k = 3, learning rate
    1e-3; also 1e-4 and 1e-5), the rest as GD in A.2.1. Goel et al. anneal the learning rate from
    0.1 to 0.005 over 62 epochs. The cost counts a step as a whole gradient, though none is taken of
    the lower layers.
    """

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(
        small={"epochs": 5, "learning_rate": 0.05},
        effective={"epochs": 30},
        keeps_first_layers=True,
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
        """Returns the network after retraining its last k layers.

        Raises:
          ValueError: a task or variables that do not fit the model, k beyond its layers, or a batch
            larger than the retain set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        last = select_last_layers(model, variables, self.depth(model))
        init_key, run_key = jax.random.split(key)
        check_fresh(model)
        fresh = jax.jit(model.init)(init_key)
        reset = Variables(
            replace(last.params, variables.params, fresh.params),
            replace(last.state, variables.state, fresh.state),
        )
        return descend_last_layers(
            run_key, model, reset, task.retain, self, on_epoch=on_epoch, on_snapshot=on_snapshot
        )

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        return self.gradients_on(variables, task.retain)
