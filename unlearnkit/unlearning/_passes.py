"""Epochs over the retain and the forget set: several passes, or both sets zipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import (
    Cost,
    Dataset,
    Model,
    OnEpoch,
    OnSnapshot,
    Task,
    Unlearned,
    UnlearnInfo,
    Variables,
)
from unlearnkit.costs import Stopwatch
from unlearnkit.host.arrays import put
from unlearnkit.host.order import whole_rows
from unlearnkit.host.random import host_key
from unlearnkit.host.reserve import reserve
from unlearnkit.training import CrossEntropy, Objective, Recipe, rate_table, take_steps
from unlearnkit.training.checkpoint import Progress
from unlearnkit.training.divergence import refuse_divergence, refuse_infinite_weights
from unlearnkit.training.identity import identify
from unlearnkit.training.recipe import split_recipe
from unlearnkit.training.resuming import Checkpoints, Identity
from unlearnkit.training.step import TrainState, start_state
from unlearnkit.unlearning._sgd import Fitted, SgdSettings, capped, with_running_statistics

S = TypeVar("S", bound="TwoSetSettings")
AfterEpoch = Callable[[Variables], Mapping[str, float]]
"""Measures the network after an epoch; the arrays are donated to the next: copy what is kept."""


class FittedPair(NamedTuple):
    """A descent on two sets as they allow it.

    Attributes:
      retain: how the pass over the retain set runs, and the optimiser of both.
      forget: how the pass over the forget set runs, its batch size among it.
      adapted: see `UnlearnInfo`.
    """

    retain: Recipe
    forget: Recipe
    adapted: dict[str, int | str]


@dataclasses.dataclass(frozen=True)
class TwoSetSettings(SgdSettings):
    """Stochastic gradient descent on the retain and the forget set.

    Attributes:
      batch_size: retain examples a step; at most the size of the retain set. None takes 128, or the
        whole retain set where that is smaller.
      forget_batch_size: forget examples a step, at most the size of the forget set; None takes as
        many as of the retain set, or the whole forget set where that is smaller.
    """

    forget_batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.forget_batch_size is not None and self.forget_batch_size < 1:
            raise ValueError(f"forget_batch_size must be >= 1, got {self.forget_batch_size}")

    def fitting(self: S, task: Task) -> S:
        """Returns the settings with batches no larger than the task's sets; see `SgdSettings`."""
        return capped(super().fitting(task), forget_batch_size=task.forget.size)

    def fitted_pair(self, variables: Variables, task: Task) -> FittedPair:
        """Returns how the passes over the retain and over the forget set run.

        Args:
          variables: of the network; a state means that it has batch statistics.
          task: the question.

        Raises:
          ValueError: an explicit batch size larger than its set.
        """
        return fit_pair(self, variables, task, self.forget_batch_size)


def fit_pair(
    settings: SgdSettings, variables: Variables, task: Task, wanted: int | None
) -> FittedPair:
    """Returns how the passes of some settings over the retain and over the forget set run.

    Args:
      settings: of both passes.
      variables: of the network; a state means that it has batch statistics.
      task: the question.
      wanted: forget examples a step; None takes as many as of the retain set, or all.

    Raises:
      ValueError: an explicit batch size larger than its set.
    """
    retain, adapted = settings.fitted(variables, task.retain)
    most = task.forget.size
    if wanted is not None and wanted > most:
        raise ValueError(
            f"forget_batch_size={wanted} is larger than the data ({most} forget examples); "
            f"choose forget_batch_size <= {most}, or None"
        )
    if wanted is None:
        wanted = min(retain.batch_size, most)
        adapted |= {"forget_batch_size": wanted} if wanted < retain.batch_size else {}
    forget = dataclasses.replace(
        retain, batch_size=wanted, frozen_state=settings.recipe().frozen_state
    )
    forget, adapted = with_running_statistics(forget, variables, adapted, "forget_statistics")
    return FittedPair(retain, forget, adapted)


class Pass(NamedTuple):
    """Some steps of an epoch, all of one objective on one dataset.

    Attributes:
      objective: what each step descends.
      dataset: what `rows` indexes; `reserve` it once for all epochs.
      rows: the batches.
      key: of the steps.
      context: passed on to the objective.
      report: the metrics that the epoch's history takes from this pass, and what it calls them;
        None takes all by their own names.
    """

    objective: Objective
    dataset: Dataset
    rows: Int[np.ndarray, "steps batch"]
    key: Key[Array, ""]
    context: Any = None
    report: Mapping[str, str] | None = None


Plan = Callable[[int], Sequence[Pass]]
"""Returns the passes of an epoch, which counts from 0."""


def take_passes(
    state: TrainState,
    passes: Sequence[Pass],
    rates: Float[np.ndarray, " steps"],
    done: int,
    recipe: Recipe,
) -> tuple[TrainState, dict[str, float], int]:
    """Returns the state after the passes of an epoch, what they report, and the steps done.

    Args:
      state: before them; donated.
      passes: of the epoch.
      rates: the learning rate of each step of the run.
      done: steps of the run that were taken before.
      recipe: the optimiser.
    """
    measured: dict[str, float] = {}
    for part in passes:
        state, metrics = take_steps(
            state,
            part.dataset,
            part.rows,
            rates[done : done + len(part.rows)],
            part.key,
            part.context,
            objective=part.objective,
            recipe=recipe,
        )
        done += len(part.rows)
        names = {name: name for name in metrics} if part.report is None else part.report
        measured |= {
            names[name]: float(np.mean(metrics[name])) for name in metrics if name in names
        }
    return state, measured, done


def steps_of_whole_pass(size: int, batch_size: int) -> int:
    """Returns the batches of a pass that sees every one of `size` examples."""
    return -(-size // batch_size)


def gradients_on_forget(recipe: Recipe, size: int) -> float:
    """Returns what `descend_on_forget` takes on `size` examples."""
    return float(recipe.epochs * steps_of_whole_pass(size, recipe.batch_size) * recipe.batch_size)


def descend_on_forget(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    dataset: Dataset,
    fitted: Fitted,
    *,
    sign: float = 1.0,
    on_epoch: OnEpoch | None = None,
    on_snapshot: OnSnapshot | None = None,
) -> Unlearned:
    """Returns the network after descending `sign` times the cross-entropy of the forget set.

    Every example is used in every pass, see `host.whole_rows`.
    """
    recipe, adapted = fitted
    order_key, step_key = host_key(key).split()
    objective, held, typed = CrossEntropy(model, recipe, sign), reserve(dataset), step_key.typed()

    def plan(epoch: int) -> list[Pass]:
        rows = whole_rows(order_key, epoch, dataset.size, recipe.batch_size)
        return [Pass(objective, held, rows, typed)]

    return descend_passes(
        plan,
        recipe,
        variables,
        steps_per_epoch=steps_of_whole_pass(dataset.size, recipe.batch_size),
        example_gradients=gradients_on_forget(recipe, dataset.size),
        adapted=adapted,
        on_epoch=on_epoch,
        on_snapshot=on_snapshot,
    )


def descend_passes(
    plan: Plan,
    recipe: Recipe,
    variables: Variables,
    *,
    steps_per_epoch: int,
    example_gradients: float,
    adapted: Mapping[str, int | str],
    rates: Float[np.ndarray, " steps"] | None = None,
    on_epoch: OnEpoch | None = None,
    on_snapshot: OnSnapshot | None = None,
    after_epoch: AfterEpoch | None = None,
) -> Unlearned:
    """Returns the network after `recipe.epochs` epochs of passes; `variables` stay untouched.

    In a block of `training.keep_trainings` it goes on where it was killed, unless something else
    is made of its networks after each epoch.

    Args:
      plan: what is done in an epoch; the same each time that it is asked for.
      recipe: the optimiser of all passes, and the number of epochs.
      variables: where to start.
      steps_per_epoch: the steps of all passes of an epoch, which turn the recipe's schedule into
        learning rates.
      example_gradients: what all epochs cost.
      adapted: see `UnlearnInfo`.
      rates: the learning rate of each step in the place of the recipe's.
      on_epoch: called after each epoch.
      on_snapshot: called with the network after each epoch.
      after_epoch: measures the network after each epoch; joins the history.

    Raises:
      DivergedError: the loss or a weight is no longer finite.
    """
    state = start_state(variables, recipe=split_recipe(recipe)[0])
    if rates is None:
        rates = rate_table(recipe, steps_per_epoch, recipe.epochs * steps_per_epoch)

    def identity() -> Identity:
        told = [
            identify(part.key, part.objective, recipe, part.dataset, variables, part.context)
            for part in plan(0)
        ]
        return {**told[0], "passes": told}

    kept = Checkpoints(None, identity)
    if on_snapshot is None and after_epoch is None:
        kept = Checkpoints.of_series(identity)
    begun = kept.load(state, recipe, steps_per_epoch)
    if begun is None:
        begun = Progress(state, 0, {}, (0.0, 0.0), recipe.epochs)
    state, first, history, (seconds, compile_seconds), _ = begun
    kept.tell_earlier(on_epoch, first, history)
    done = int(state.step)
    for epoch in range(first, recipe.epochs):
        with Stopwatch() as watch:
            state, measured, done = take_passes(state, plan(epoch), rates, done, recipe)
            if after_epoch is not None:
                measured |= after_epoch(state.variables)
        seconds, compile_seconds = seconds + watch.seconds, compile_seconds + watch.compile_seconds
        refuse_divergence(measured["loss"], epoch, recipe)
        for name, value in measured.items():
            history.setdefault(name, []).append(value)
        spent = seconds, compile_seconds
        kept.save(Progress(state, epoch + 1, history, spent, recipe.epochs))
        if on_epoch is not None:
            on_epoch(epoch + 1, measured)
        if on_snapshot is not None:
            on_snapshot(epoch + 1, state.variables)
    refuse_infinite_weights(state.variables, recipe)
    arrays = {name: put(np.array(values)) for name, values in history.items()}
    cost = Cost(example_gradients, seconds, compile_seconds)
    return Unlearned(state.variables, UnlearnInfo(arrays, cost, adapted=adapted))
