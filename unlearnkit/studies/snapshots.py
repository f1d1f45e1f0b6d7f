"""All budgets of a method from one run, where a shorter run is the beginning of a longer one."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeGuard, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import (
    Cost,
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
from unlearnkit.studies.budget import CountsItself, with_epochs
from unlearnkit.training import DivergedError
from unlearnkit.training.inheritance import takes_initial


@runtime_checkable
class PrefixStable(CountsItself, Protocol):
    """A method whose first epochs do not depend on how many there are in all."""

    @property
    def prefix_stable(self) -> bool:
        """Whether a run of fewer epochs is, bit for bit, the beginning of a longer one."""
        ...

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
        """Returns the network that forgot; see `unlearnkit.base.Unlearner`.

        Args:
          key: drives all that is random.
          model: the network.
          variables: trained on all of `task.train`.
          task: what to forget and what to keep.
          on_epoch: called after each epoch.
          on_snapshot: called after `on_epoch`, with the network as it would be returned now.
        """
        ...


def is_prefix_stable(method: object) -> TypeGuard[PrefixStable]:
    """Whether all budgets of a method can be read off one run of it."""
    if not isinstance(method, PrefixStable) or not method.prefix_stable:
        return False
    return "on_snapshot" in inspect.signature(method).parameters


class _StableFromStart(PrefixStable, Protocol):
    """A prefix-stable method that asks for the weights from which the original's training began."""

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        initial: Variables | None = None,
        on_epoch: OnEpoch | None = None,
        on_snapshot: OnSnapshot | None = None,
    ) -> Unlearned: ...


def _begins(method: PrefixStable) -> TypeGuard[_StableFromStart]:
    return takes_initial(method)


def unlearn_for(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    task: Task,
    method: PrefixStable,
    epochs: Sequence[int],
    *,
    initial: Variables | None = None,
    on_epoch: OnEpoch | None = None,
) -> Iterator[tuple[int, Unlearned | DivergedError]]:
    """Yields what a method made of the task after each of several numbers of epochs.

    It runs once, for the most epochs; where that diverges, once more for the next fewer, and so on.
    Each result is bit for bit that of a run of so many epochs with the same key; what its seconds
    hold is all that was done up to there.

    Args:
      key: of the run.
      model: the network.
      variables: where it starts.
      task: the question.
      method: for which `is_prefix_stable` holds.
      epochs: after how many the network is taken, each >= 1.
      initial: the weights from which the original's training began, if it did not begin afresh.
      on_epoch: called after each epoch.
    """
    asked = sorted(set(epochs))
    while asked:
        try:
            yield from _run(key, model, variables, task, method, asked, initial, on_epoch)
            return
        except DivergedError as error:
            yield asked.pop(), error


def _run(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    task: Task,
    method: PrefixStable,
    asked: Sequence[int],
    initial: Variables | None,
    on_epoch: OnEpoch | None,
) -> list[tuple[int, Unlearned | DivergedError]]:
    history: dict[str, list[float]] = {}
    taken: dict[int, tuple[Variables, Cost, dict[str, Array]]] = {}

    def note(epoch: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            history.setdefault(name, []).append(value)
        if on_epoch is not None:
            on_epoch(epoch, metrics)

    def take(epoch: int, now: Variables) -> None:
        if epoch in asked[:-1]:
            gradients = with_epochs(method, epoch).example_gradients(variables, task)
            curves = {name: put(np.array(values)) for name, values in history.items()}
            copied = jax.tree.map(lambda leaf: put(np.array(leaf)), now)
            taken[epoch] = copied, Cost(gradients, *watch.lap()), curves

    longest = with_epochs(method, asked[-1])
    with Stopwatch() as watch:
        if initial is not None and _begins(longest):
            last = longest(
                key, model, variables, task, initial=initial, on_epoch=note, on_snapshot=take
            )
        else:
            last = longest(key, model, variables, task, on_epoch=note, on_snapshot=take)
    adapted = last.info.adapted
    found: list[tuple[int, Unlearned | DivergedError]] = [
        (epoch, Unlearned(weights, UnlearnInfo(curves, cost, adapted=adapted)))
        for epoch, (weights, cost, curves) in taken.items()
    ]
    return [*found, (asked[-1], last)]
