"""Methods that train as the network was trained which they are given."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from unlearnkit.training.recipe import Recipe

Method = TypeVar("Method")

OWN = frozenset(
    {
        "epochs", "batch_size", "learning_rate", "momentum", "weight_decay",
        "optimizer", "gradient_noise", "decay_toward",
    }
)  # fmt: skip
"""What a method does not take from the original's recipe: these are hyperparameters of its own."""


def inherited(original: Recipe | None, **own: Any) -> Recipe:
    """Returns a recipe with settings of its own and the other ones of the original's recipe.

    Taken over are the augmentation, the schedule, label smoothing, the compute dtype, the mode of
    BatchNorm, gradient clipping and Nesterov's form of the momentum: all but `OWN`. Milestones and
    warm-up, counted in epochs, keep their place in the run: they are scaled by the ratio of its
    epochs to the original's; a milestone is never put before the end of the first epoch.

    Args:
      original: how the network that a method starts from was trained; None: not known, and only
        `own` departs from the defaults of `Recipe`.
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
    """Returns the method told how the original was trained, where it was not told otherwise.

    A method is a dataclass; it asks for this by a field `train_like` (its descent takes over what
    `inherited` says) or `recipe` (it trains anew) that is None. Any other method is returned as it
    is.

    Args:
      method: an unlearner.
      recipe: the original's.
    """
    if not dataclasses.is_dataclass(method) or isinstance(method, type):
        return method
    names = {field.name for field in dataclasses.fields(method)} & {"train_like", "recipe"}
    told = {name: recipe for name in names if getattr(method, name) is None}
    return dataclasses.replace(method, **told) if told else method
