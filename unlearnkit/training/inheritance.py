"""Unlearning methods that reuse the original network's training settings."""

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
