"""Epochs over the retain and the forget set: several passes, or both sets zipped, in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from unlearnkit.base import Cost, OnEpoch, Task, Unlearned, UnlearnInfo, Variables
from unlearnkit.clock import Stopwatch
from unlearnkit.training import Recipe, TrainState, epoch_batches, init_train_state
from unlearnkit.training.divergence import refuse_divergence, refuse_infinite_weights
from unlearnkit.training.step import Metrics
from unlearnkit.unlearning._sgd import SgdSettings


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


@dataclasses.dataclass(frozen=True)
class TwoSetSettings(SgdSettings):
    """Stochastic gradient descent on the retain and the forget set.

    Attributes:
      batch_size: retain examples a step; at most the size of the retain set.
      forget_batch_size: forget examples a step, at most the size of the forget set; None takes
        `batch_size`, or the whole forget set where that is smaller.
    """

    forget_batch_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.forget_batch_size is not None and self.forget_batch_size < 1:
            raise ValueError(f"forget_batch_size must be >= 1, got {self.forget_batch_size}")

    def batch_sizes(self, task: Task) -> tuple[int, int]:
        """Returns how many retain and how many forget examples a step sees.

        Raises:
          ValueError: a batch larger than its set.
        """
        self.recipe().steps_per_epoch(task.retain.size)
        most = task.forget.size
        if self.forget_batch_size is None:
            return self.batch_size, min(self.batch_size, most)
        if self.forget_batch_size > most:
            raise ValueError(
                f"forget_batch_size={self.forget_batch_size} is larger than the data ({most} "
                f"forget examples); choose forget_batch_size <= {most}, or None"
            )
        return self.batch_size, self.forget_batch_size


def used(size: int, batch_size: int) -> int:
    """Returns how many of `size` examples one pass in whole batches sees."""
    return size // batch_size * batch_size


def cycled_batches(
    key: Key[Array, ""], n: int, batch_size: int, steps: int
) -> Int[Array, "steps batch"]:
    """Returns `steps` batches: passes over fresh permutations of range(n), one after another."""
    passes = -(-steps // (n // batch_size))
    batches = jax.vmap(lambda i: epoch_batches(key, i, n, batch_size))(jnp.arange(passes))
    return batches.reshape(-1, batch_size)[:steps]


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
    return Unlearned(state.variables, UnlearnInfo(arrays, cost))
