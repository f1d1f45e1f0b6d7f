"""Relearn time: rounds of training until the forget set is known again."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.auditing.case import Case, Subject
from unlearnkit.base import Audited, Dataset, Model, Task, Variables
from unlearnkit.kernels import cross_entropy_losses
from unlearnkit.training import (
    CrossEntropy,
    DivergedError,
    Recipe,
    TrainState,
    init_train_state,
    predict,
    run_epoch,
    train_step,
)
from unlearnkit.training.recipe import DecayCentre
from unlearnkit.trials import AuditTrial
from unlearnkit.validation import check_at_least, check_task, check_variables


@dataclasses.dataclass(frozen=True)
class RelearnTime:
    """Counts the rounds of training on everything until the forget set is known again.

    A round is `samples` examples drawn with replacement from retain ∪ forget, in steps of
    `batch_size` (the last one shorter). The time is the first round after which

        mean_forget CE <= target_loss + tolerance,

    so it is at least 1 (0 with `check_first`), and `cap` where that never happens. Weights that
    still hold the forget set relearn sooner than retrained ones.

    Attributes:
      target_loss: the original network's `forget_loss`, nats; None, in a study, takes the case's.
      tolerance: nats.
      samples: examples per round; None takes as many as there are in retain and forget.
      batch_size: examples per step; at most `samples`.
      learning_rate: of plain SGD.
      momentum: heavy-ball momentum.
      weight_decay: λ in (λ/2)‖w - c‖².
      decay_toward: the centre c: `zero`, or `start`, the weights that are judged.
      frozen_state: BatchNorm keeps its running statistics, as in the fine-tuning of Golatkar et al.
        2020b, 5.2.
      cap: rounds after which it gives up.
      check_first: the time is 0 where the forget set is known before any round.

    Example:
      audit = auditing.RelearnTime(auditing.forget_loss(model, original, task))
      metrics, curves = audit(key, model, variables, task)

    The public code counts by `RelearnTime(weight_decay=0.1, decay_toward="start",
    check_first=True)`.

    Source: Golatkar et al. 2020b, §5.4 (iv); rounds, tolerance and cap of its public code.
    """

    target_loss: float | None = None
    tolerance: float = 1e-5
    samples: int | None = 500
    batch_size: int = 128
    learning_rate: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay_toward: DecayCentre = "zero"
    frozen_state: bool = True
    cap: int = 100
    check_first: bool = False

    trial: ClassVar[AuditTrial] = AuditTrial(
        small={"target_loss": 0.3, "samples": 128, "batch_size": 32, "cap": 30},
        tells=("relearn_time", -1),
        key_may_not_matter=True,
    )

    def __post_init__(self) -> None:
        goal = self.target_loss
        if goal is not None and not (np.isfinite(goal) and goal >= 0):
            raise ValueError(
                f"target_loss must be finite and >= 0, got {self.target_loss}; "
                "take forget_loss(model, original, task)"
            )
        check_at_least(self, 0, "tolerance")
        check_at_least(self, 1, "cap")
        recipe = self._recipe()
        if self.samples is not None:
            recipe.steps_per_epoch(self.samples)

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, task: Task
    ) -> Audited:
        """Returns `relearn_time` in rounds, and the forget loss after each round as a curve.

        Metrics: `relearn_time`; `relearned`, 1 where the target was reached within the cap, else 0;
        `forget_loss`, before the first round. Curve: `forget_loss`, from before the first round.

        Raises:
          ValueError: a task or variables that do not fit the model, no `target_loss`, or a batch
            larger than a round.
          DivergedError: the forget loss is no longer finite.
        """
        if self.target_loss is None:
            raise ValueError("target_loss must be given outside of a study")
        check_task(task, model)
        check_variables(variables, model)
        samples = task.train.size if self.samples is None else self.samples
        self._recipe().steps_per_epoch(samples)
        start = forget_loss(model, variables, task)
        losses, rounds = _relearn(
            key,
            variables,
            task.train,
            task.forget,
            jnp.float32(self.target_loss + self.tolerance),
            objective=CrossEntropy(model, self._recipe()),
            samples=samples,
            cap=self.cap,
            check_first=self.check_first,
        )
        measured = np.asarray(losses)[: int(rounds)]
        if not np.all(np.isfinite(measured)):
            raise DivergedError(
                f"relearning diverged in round {int(np.argmin(np.isfinite(measured))) + 1}; "
                f"lower learning_rate={self.learning_rate:g}"
            )
        curve = np.concatenate([[start], measured])
        reached = bool(curve[-1] <= np.float32(self.target_loss + self.tolerance))
        metrics = {
            "relearn_time": float(rounds),
            "relearned": float(reached),
            "forget_loss": start,
        }
        return Audited(metrics, {"forget_loss": curve})

    def judge(self, key: Key[Array, ""], case: Case, subject: Subject) -> Audited:
        """Returns the time until the forget set is known as the case's original knows it.

        Raises:
          ValueError: see `__call__`.
          DivergedError: see `__call__`.
        """
        goal = self.target_loss
        if goal is None:
            goal = forget_loss(case.model, case.original, case.task)
        return dataclasses.replace(self, target_loss=goal)(
            key, case.model, subject.variables, case.task
        )

    def _recipe(self) -> Recipe:
        return Recipe(
            epochs=1,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            decay_toward=self.decay_toward,
            frozen_state=self.frozen_state,
        )


def forget_loss(model: Model, variables: Variables, task: Task) -> float:
    """Returns the mean cross-entropy on the forget set in evaluation mode, in nats.

    Of the original network it is the `target_loss` of `RelearnTime`.

    Args:
      model: the network.
      variables: its weights and state.
      task: of which only the forget set is read.
    """
    return float(_mean_loss(variables, task.forget, model=model))


@partial(jax.jit, static_argnames="model")
def _mean_loss(variables: Variables, dataset: Dataset, *, model: Model) -> Float[Array, ""]:
    return cross_entropy_losses(predict(model, variables, dataset.x), dataset.y).mean()


@partial(jax.jit, static_argnames=("objective", "samples", "cap", "check_first"))
def _relearn(
    key: Key[Array, ""],
    variables: Variables,
    train: Dataset,
    forget: Dataset,
    target: Float[Array, ""],
    *,
    objective: CrossEntropy,
    samples: int,
    cap: int,
    check_first: bool,
) -> tuple[Float[Array, " cap"], Int[Array, ""]]:
    """Returns the forget loss after each round, NaN where none was run, and the rounds run."""
    recipe = objective.recipe
    steps = -(-samples // recipe.batch_size)
    whole = samples // recipe.batch_size * recipe.batch_size

    def unknown(carry: tuple[TrainState, Array, Array]) -> Array:
        _, losses, rounds = carry
        last = jnp.where(rounds == 0, before, losses[rounds - 1])
        return (rounds < cap) & ~(last <= target)

    def one_round(carry: tuple[TrainState, Array, Array]) -> tuple[TrainState, Array, Array]:
        state, losses, rounds = carry
        draw_key, step_key = jax.random.split(jax.random.fold_in(key, rounds))
        rows = jax.random.randint(draw_key, (samples,), 0, train.size)
        batches = rows[:whole].reshape(-1, recipe.batch_size)
        state, _ = run_epoch(objective, recipe, state, train, batches, step_key)
        if whole < samples:
            rest = train.take(rows[whole:])
            state, _ = train_step(objective, recipe, steps, state, rest, step_key)
        loss = _mean_loss(state.variables, forget, model=objective.model)
        return state, losses.at[rounds].set(loss), rounds + 1

    # What cannot have been reached is never at most the target.
    before = jnp.float32(jnp.inf)
    if check_first:
        before = _mean_loss(variables, forget, model=objective.model)
    start = init_train_state(recipe, steps, variables)
    carry = (start, jnp.full(cap, jnp.nan), jnp.int32(0))
    _, losses, rounds = jax.lax.while_loop(unknown, one_round, carry)
    return losses, rounds
