"""Fine-tuning under a fading sparsity penalty (ℓ1-sparse)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import optax
from jaxtyping import Array, Float, Key

from unlearnkit.base import Dataset, Model, OnEpoch, Params, State, Task, Unlearned, Variables
from unlearnkit.host.order import epoch_rows
from unlearnkit.host.random import host_key
from unlearnkit.host.reserve import reserve
from unlearnkit.training import CrossEntropy
from unlearnkit.training.step import Metrics
from unlearnkit.trials import UnlearnerTrial
from unlearnkit.unlearning._passes import Pass, descend_passes
from unlearnkit.unlearning._sgd import SgdSettings
from unlearnkit.validation import check_at_least, check_task, check_variables


@dataclasses.dataclass(frozen=True)
class L1Sparse(SgdSettings):
    """Continues training on the retain set while an L1 penalty drives weights to zero.

    min_w CE_retain(w) + γ (1 - t / epochs) ‖w‖₁ in epoch t = 0, 1, …, over all parameters,
    BatchNorm in training mode.

    Attributes:
      epochs: passes over the retain set.
      gamma: γ, the penalty's weight in the first epoch.

    Example:
      unlearn = unlearning.L1Sparse(epochs=5, gamma=5e-4)
      forgotten, info = unlearn(key, model, variables, task)

    Cost: `epochs * retain` example-gradients.

    Source: Jia et al. 2023; defaults of Di et al. 2024, Table 5 (learning rate 0.01, 10 epochs, γ =
    5e-4) and §6.1 (momentum 0.9, weight decay 5e-4).
    """

    learning_rate: float = 1e-2
    gamma: float = 5e-4

    trial: ClassVar[UnlearnerTrial] = UnlearnerTrial(effective={"gamma": 1e-4})

    @property
    def prefix_stable(self) -> bool:
        """Never: the penalty falls to 0 over all epochs."""
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "gamma")

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        on_epoch: OnEpoch | None = None,
    ) -> Unlearned:
        """Returns the network after sparse fine-tuning.

        Raises:
          ValueError: a task or variables that do not fit the model, or a batch larger than the
            retain set.
          DivergedError: the loss is no longer finite.
        """
        check_task(task, model)
        check_variables(variables, model)
        recipe, adapted = self.fitted(variables, task.retain)
        objective, held = _Sparse(CrossEntropy(model, recipe)), reserve(task.retain)
        steps = task.retain.size // recipe.batch_size

        def plan(epoch: int) -> list[Pass]:
            order_key, step_key = host_key(key).fold_in(epoch).split()
            rows = epoch_rows(order_key, 0, task.retain.size, recipe.batch_size)
            weight = self.gamma * (1 - epoch / recipe.epochs)
            return [Pass(objective, held, rows, step_key.typed(), weight)]

        return descend_passes(
            plan,
            recipe,
            variables,
            steps_per_epoch=steps,
            example_gradients=self.example_gradients(variables, task),
            adapted=adapted,
            on_epoch=on_epoch,
        )

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns what a run takes, which follows from sizes alone; see `info.cost`."""
        return self.gradients_on(variables, task.retain)


@dataclasses.dataclass(frozen=True)
class _Sparse:
    """The objective's loss plus `context` ‖w‖₁."""

    NUMBERS: ClassVar[tuple[str, ...]] = ()

    objective: CrossEntropy

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: float | Float[Array, ""],
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        loss, (new_state, metrics) = self.objective(params, state, batch, key)
        norm = optax.tree.norm(params, ord=1)
        return loss + context * norm, (new_state, {**metrics, "l1_norm": norm})
