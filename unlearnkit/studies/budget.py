"""Methods that are run for as long as a number of example-gradients allows."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
from jaxtyping import Array, Key

from unlearnkit.base import Model, Task, Unlearner, Variables
from unlearnkit.training import Recipe, train_from
from unlearnkit.unlearning import Retrain

_ROUNDING = 1 + 1e-9
"""0.06 of 100 is 6.000…: what is equal by hand counts as equal."""


@runtime_checkable
class CountsItself(Protocol):
    """A method whose cost follows from sizes alone, so that it need not run to be priced."""

    def example_gradients(self, variables: Variables, task: Task) -> float:
        """Returns the `example_gradients` of the cost of a run."""
        ...


class Price(NamedTuple):
    """What the epochs of a method take, in example-gradients.

    Attributes:
      first: a run of one epoch, with what goes before it.
      further: each epoch after that.
    """

    first: float
    further: float

    def epochs_within(self, gradients: float) -> int:
        """Returns the most epochs that cost no more than `gradients`; 0 where one costs more."""
        if self.first > gradients * _ROUNDING:
            return 0
        if not self.further > 0:
            return 1
        return 1 + int((gradients * _ROUNDING - self.first) / self.further)


def has_epochs(method: Unlearner) -> bool:
    """Whether a method runs for a number of epochs, its own or its recipe's."""
    return hasattr(method, "epochs") or hasattr(_recipe(method), "epochs")


def epochs_of(method: Unlearner) -> int:
    """Returns how many epochs a method runs, its own or its recipe's; 1 where it has none."""
    return int(getattr(method, "epochs", getattr(_recipe(method), "epochs", 1)))


T = TypeVar("T", bound=Unlearner)


def with_epochs(method: T, epochs: int) -> T:
    """Returns the method with another number of epochs, its own or its recipe's.

    Raises:
      ValueError: the method has none.
    """
    if not has_epochs(method):
        raise ValueError(f"{method!r} has no epochs setting, so its cost is fixed")
    settings: Any = method
    if hasattr(method, "epochs"):
        changed: T = dataclasses.replace(settings, epochs=epochs)
    else:
        recipe = dataclasses.replace(_recipe(method), epochs=epochs)
        changed = dataclasses.replace(settings, recipe=recipe)
    return changed


def _recipe(method: Unlearner) -> Any:
    """Returns the recipe that a method retrains with, or None where it does not retrain."""
    recipe = getattr(method, "recipe", None)
    return Recipe() if recipe is None and isinstance(method, Retrain) else recipe


def price(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    task: Task,
    method: Unlearner,
    *,
    initial: Variables | None = None,
) -> Price:
    """Returns what the epochs of a method take, from its own counts of one epoch and of two.

    They follow from the sizes of the task: a method that has `example_gradients` is asked, another
    one is run. Where later epochs are cheaper, as those of `Scrub` that pass over the retain set
    alone, a budget of that many is not used up.

    Args:
      key: of the two runs, where there are any.
      model: the network.
      variables: where they start.
      task: the question.
      method: with epochs.
      initial: the weights from which the original's training began, if it did not begin afresh.

    Raises:
      ValueError: the method has no epochs, or refuses the task.
      DivergedError: it was run, and diverged within two epochs.
    """
    first, both = (
        _count(key, model, variables, task, with_epochs(method, epochs), epochs, initial)
        for epochs in (1, 2)
    )
    return Price(first, both - first)


def _count(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    task: Task,
    method: Unlearner,
    epochs: int,
    initial: Variables | None,
) -> float:
    if isinstance(method, CountsItself):
        return method.example_gradients(variables, task)
    own, run = jax.random.fold_in(key, epochs), train_from(method, initial)
    return run(own, model, variables, task).info.cost.example_gradients
