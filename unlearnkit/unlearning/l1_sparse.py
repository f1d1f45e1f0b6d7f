"""Fine-tuning under a fading sparsity penalty (ℓ1-sparse)."""

from __future__ import annotations

import dataclasses

import jax
import optax
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Dataset, Model, OnEpoch, Params, State, Task, Unlearned, Variables
from unlearnkit.training import CrossEntropy, Recipe, TrainState, epoch_batches, run_epoch
from unlearnkit.training.step import Metrics
from unlearnkit.unlearning._passes import descend_passes, used
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

    Source: Jia et al. 2023; defaults of Di et al. 2024, Table 5 (learning rate 0.01, 10 epochs, γ =
    5e-4) and §6.1 (momentum 0.9, weight decay 5e-4).
    """

    learning_rate: float = 1e-2
    gamma: float = 5e-4

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
        run = _SparseEpoch(_Sparse(CrossEntropy(model, recipe)), recipe, self.gamma)
        return descend_passes(
            key,
            run,
            recipe,
            variables,
            task.retain,
            example_gradients=float(self.epochs * used(task.retain.size, recipe.batch_size)),
            adapted=adapted,
            on_epoch=on_epoch,
        )


@dataclasses.dataclass(frozen=True)
class _Sparse:
    """The objective's loss plus `context` ‖w‖₁."""

    objective: CrossEntropy

    def __call__(
        self,
        params: Params,
        state: State,
        batch: Dataset,
        key: Key[Array, ""],
        context: Float[Array, ""],
    ) -> tuple[Float[Array, ""], tuple[State, Metrics]]:
        loss, (new_state, metrics) = self.objective(params, state, batch, key)
        norm = optax.tree.norm(params, ord=1)
        return loss + context * norm, (new_state, {**metrics, "l1_norm": norm})


@dataclasses.dataclass(frozen=True)
class _SparseEpoch:
    """A pass over the data under this epoch's penalty."""

    objective: _Sparse
    recipe: Recipe
    gamma: float

    def __call__(
        self, state: TrainState, data: Dataset, key: Key[Array, ""], epoch: Int[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        order_key, step_key = jax.random.split(jax.random.fold_in(key, epoch))
        batches = epoch_batches(order_key, 0, data.size, self.recipe.batch_size)
        weight = self.gamma * (1 - epoch / self.recipe.epochs)
        return run_epoch(self.objective, self.recipe, state, data, batches, step_key, weight)
