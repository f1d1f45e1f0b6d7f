"""Unlearning methods that reuse how the original network was trained: its recipe, its start."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any, Protocol, TypeGuard, TypeVar

from jaxtyping import Array, Key

from unlearnkit.base import Model, OnEpoch, Task, Unlearned, Unlearner, Variables
from unlearnkit.training.recipe import Recipe

Method = TypeVar("Method")

OWN = frozenset(
    {
        "epochs", "batch_size", "learning_rate", "momentum", "weight_decay",
        "optimizer", "gradient_noise", "decay_toward",
    }
)  # fmt: skip
"""Settings that are never inherited: each method has its own."""


def inherited(original: Recipe | None, **own: Any) -> Recipe:
    """Returns a recipe with the given settings and the remaining ones of the original's recipe.

    Inherited are the augmentation, the schedule, label smoothing, the compute dtype, the mode of
    BatchNorm, gradient clipping and Nesterov's form of the momentum: all but `OWN`. Milestones and
    warm-up, counted in epochs, keep their place in the run: they are scaled by the ratio of its
    epochs to the original's; a milestone is never put before the end of the first epoch.

    Args:
      original: how the original network was trained; None if unknown: then all settings but `own`
        are the defaults of `Recipe`.
      own: settings of this run.
    """
    if original is None:
        return Recipe(**own)
    kept = {
        field.name: getattr(original, field.name)
        for field in dataclasses.fields(Recipe)
        if field.name not in OWN
    }
    ratio = own.get("epochs", original.epochs) / max(original.epochs, 1)
    kept["warmup_epochs"] = original.warmup_epochs * ratio
    kept["milestones"] = tuple(sorted({max(1, round(m * ratio)) for m in original.milestones}))
    return Recipe(**{**kept, **own})


def train_like(method: Method, recipe: Recipe) -> Method:
    """Returns the method with the original's recipe filled in where it has none.

    A method asks for this by a field that is None: `train_like` (it inherits settings, see
    `inherited`) or `recipe` (it trains from scratch). Other methods are returned unchanged.

    Args:
      method: an unlearner.
      recipe: the original's.
    """
    if not dataclasses.is_dataclass(method) or isinstance(method, type):
        return method
    names = {field.name for field in dataclasses.fields(method)} & {"train_like", "recipe"}
    told = {name: recipe for name in names if getattr(method, name) is None}
    return dataclasses.replace(method, **told) if told else method


class _FromStart(Protocol):
    """An unlearner that asks for the weights from which the original's training began."""

    def __call__(
        self,
        key: Key[Array, ""],
        model: Model,
        variables: Variables,
        task: Task,
        *,
        initial: Variables | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> Unlearned: ...


def train_from(method: Unlearner, initial: Variables | None) -> Unlearner:
    """Returns the method with the weights from which the original's training began.

    A method asks for them by a keyword `initial`, as `Retrain` and `NtkScrub` do; others are
    returned unchanged.

    Args:
      method: an unlearner.
      initial: the weights; None where training began from a fresh initialisation.
    """
    if initial is None or not takes_initial(method):
        return method
    return functools.partial(method, initial=initial)


def takes_initial(method: Unlearner) -> TypeGuard[_FromStart]:
    """Whether a method asks for the weights from which the original's training began."""
    try:
        return "initial" in inspect.signature(method).parameters
    except (TypeError, ValueError):  # a callable of C, which says nothing of itself
        return False
