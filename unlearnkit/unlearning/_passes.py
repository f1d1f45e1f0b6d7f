"""Epochs over the retain and the forget set: several passes, or both sets zipped, in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from unlearnkit.base import (
    Cost,
    Dataset,
    Model,
    OnEpoch,
    Task,
    Unlearned,
    UnlearnInfo,
    Variables,
)
from unlearnkit.costs import Stopwatch
from unlearnkit.training import (
    CrossEntropy,
    Objective,
    Recipe,
    TrainState,
    init_train_state,
    run_epoch,
)
from unlearnkit.training.divergence import refuse_divergence, refuse_infinite_weights
from unlearnkit.training.step import Metrics
from unlearnkit.unlearning._sgd import Fitted, SgdSettings, with_running_statistics


@runtime_checkable
class Epoch(Protocol):
    """What one epoch does; a hashable value, so that it can be a static argument.

    `data` are the arrays it reads, `key` is the run's key and `epoch` counts from 0. The metrics
    hold at least `loss` and `accuracy`.
    """

    def __call__(
        self, state: TrainState, data: Any, key: Key[Array, ""], epoch: Int[Array, ""]
    ) -> tuple[TrainState, Metrics]: ...


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

    def fitted_pair(self, variables: Variables, task: Task) -> FittedPair:
        """Returns how the passes over the retain and over the forget set run.

        Args:
          variables: of the network; a state means that it has batch statistics.
          task: the question.

        Raises:
          ValueError: an explicit batch size larger than its set.
        """
        retain, adapted = self.fitted(variables, task.retain)
        most, wanted = task.forget.size, self.forget_batch_size
        if wanted is not None and wanted > most:
            raise ValueError(
                f"forget_batch_size={wanted} is larger than the data ({most} forget examples); "
                f"choose forget_batch_size <= {most}, or None"
            )
        if wanted is None:
            wanted = min(retain.batch_size, most)
            adapted |= {"forget_batch_size": wanted} if wanted < retain.batch_size else {}
        forget = dataclasses.replace(
            retain, batch_size=wanted, frozen_state=self.recipe().frozen_state
        )
        forget, adapted = with_running_statistics(forget, variables, adapted, "forget_statistics")
        return FittedPair(retain, forget, adapted)


def used(size: int, batch_size: int) -> int:
    """Returns how many of `size` examples a pass in whole batches sees: the rest waits."""
    return size // batch_size * batch_size


def steps_of_whole_pass(size: int, batch_size: int) -> int:
    """Returns the batches of a pass that sees every one of `size` examples."""
    return -(-size // batch_size)


def whole_batches(
    key: Key[Array, ""], index: Int[Array, ""] | int, n: int, batch_size: int
) -> Int[Array, "steps batch"]:
    """Returns the batches of a pass in which every one of range(n) is seen.

    They are the rows of a fresh permutation. The last one, where that leaves it short, is filled
    from the permutation of the next pass, with the first examples there that it does not hold.

    Args:
      key: of all passes.
      index: of this pass.
      n: examples.
      batch_size: at most n.
    """
    order = jax.random.permutation(jax.random.fold_in(key, index), n)
    steps = steps_of_whole_pass(n, batch_size)
    missing = steps * batch_size - n
    if missing:
        following = jax.random.permutation(jax.random.fold_in(key, index + 1), n)
        held = jnp.isin(following, order[(steps - 1) * batch_size :])
        fill = following[jnp.argsort(held, stable=True)[:missing]]
        order = jnp.concatenate([order, fill])
    return order.reshape(steps, batch_size).astype(jnp.int32)


def cycled_batches(
    key: Key[Array, ""], first: Int[Array, ""] | int, n: int, batch_size: int, steps: int
) -> Int[Array, "steps batch"]:
    """Returns `steps` batches of whole passes over range(n) that follow one another.

    Args:
      key: of all passes.
      first: the batches that were taken before: the cycle goes on where it stood.
      n: examples.
      batch_size: at most n.
      steps: batches.
    """
    per_pass = steps_of_whole_pass(n, batch_size)
    passes = -(-steps // per_pass) + 1
    begun = first // per_pass
    batches = jax.vmap(lambda i: whole_batches(key, begun + i, n, batch_size))(jnp.arange(passes))
    flat = batches.reshape(-1, batch_size)
    return jax.lax.dynamic_slice_in_dim(flat, first - begun * per_pass, steps)


class _ForgetPass(NamedTuple):
    dataset: Dataset
    order_key: Key[Array, ""]
    step_key: Key[Array, ""]


@dataclasses.dataclass(frozen=True)
class _WholeEpoch:
    """A pass that sees every example."""

    objective: Objective
    recipe: Recipe

    def __call__(
        self, state: TrainState, data: _ForgetPass, key: Key[Array, ""], epoch: Int[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        dataset, order_key, step_key = data
        batches = whole_batches(order_key, epoch, dataset.size, self.recipe.batch_size)
        return run_epoch(self.objective, self.recipe, state, dataset, batches, step_key)


def descend_on_forget(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    dataset: Dataset,
    fitted: Fitted,
    *,
    sign: float = 1.0,
    on_epoch: OnEpoch | None = None,
) -> Unlearned:
    """Returns the network after descending `sign` times the cross-entropy of the forget set.

    Every example is used in every pass, see `whole_batches`.
    """
    recipe, adapted = fitted
    order_key, step_key = jax.random.split(key)
    steps = steps_of_whole_pass(dataset.size, recipe.batch_size)
    return descend_passes(
        order_key,
        _WholeEpoch(CrossEntropy(model, recipe, sign), recipe),
        recipe,
        variables,
        _ForgetPass(dataset, order_key, step_key),
        example_gradients=float(recipe.epochs * steps * recipe.batch_size),
        adapted=adapted,
        on_epoch=on_epoch,
    )


@partial(jax.jit, static_argnames=("run",), donate_argnames=("state",))
def pass_epoch(
    state: TrainState, data: Any, key: Key[Array, ""], epoch: Int[Array, ""], *, run: Epoch
) -> tuple[TrainState, Metrics]:
    """Returns the state after one compiled epoch, and its metrics; `state` is donated."""
    return run(state, data, key, epoch)


def descend_passes(
    key: Key[Array, ""],
    run: Epoch,
    recipe: Recipe,
    variables: Variables,
    data: Any,
    *,
    example_gradients: float,
    adapted: Mapping[str, int | str],
    on_epoch: OnEpoch | None = None,
    after_epoch: AfterEpoch | None = None,
) -> Unlearned:
    """Returns the network after `recipe.epochs` epochs of `run`; `variables` stay untouched.

    Args:
      key: the run's key.
      run: an epoch.
      recipe: its optimiser and number of epochs.
      variables: where to start.
      data: what `run` reads.
      example_gradients: what all epochs cost.
      adapted: see `UnlearnInfo`.
      on_epoch: called after each epoch.
      after_epoch: measures the network after each epoch; joins the history.

    Raises:
      DivergedError: the loss or a weight is no longer finite.
    """
    state = init_train_state(recipe, 1, jax.tree.map(jnp.array, variables))
    history: dict[str, list[float]] = {}
    seconds, compile_seconds = 0.0, 0.0
    for epoch in range(recipe.epochs):
        with Stopwatch() as watch:
            state, metrics = pass_epoch(state, data, key, jnp.int32(epoch), run=run)
            measured = {name: float(value) for name, value in metrics.items()}
            if after_epoch is not None:
                measured |= after_epoch(state.variables)
        seconds, compile_seconds = seconds + watch.seconds, compile_seconds + watch.compile_seconds
        refuse_divergence(measured["loss"], epoch, recipe)
        for name, value in measured.items():
            history.setdefault(name, []).append(value)
        if on_epoch is not None:
            on_epoch(epoch + 1, measured)
    refuse_infinite_weights(state.variables, recipe)
    arrays = {name: jnp.asarray(values) for name, values in history.items()}
    cost = Cost(example_gradients, seconds, compile_seconds)
    return Unlearned(state.variables, UnlearnInfo(arrays, cost, adapted=adapted))
