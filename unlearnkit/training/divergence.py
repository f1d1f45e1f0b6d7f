"""Detects diverged training."""

from __future__ import annotations

import numpy as np

from unlearnkit.base import Variables
from unlearnkit.training.recipe import Recipe
from unlearnkit.validation import all_finite


class DivergedError(FloatingPointError):
    """Training diverged: the loss or a weight is not finite, or the network is unusable."""


def refuse_divergence(losses: float | np.ndarray, epoch: int, recipe: Recipe) -> None:
    """Raises `DivergedError` if a loss of the epoch is not finite.

    Args:
      losses: one or more losses of the epoch.
      epoch: its number, from 0.
      recipe: for the learning rate in the error message.
    """
    if np.all(np.isfinite(losses)):
        return
    raise DivergedError(
        f"training diverged in epoch {epoch + 1}: loss {losses}; "
        f"lower learning_rate={recipe.learning_rate:g}, or set clip_norm"
    )


def refuse_infinite_weights(variables: Variables, recipe: Recipe) -> None:
    """Raises `DivergedError` if a weight is not finite."""
    if all_finite(variables):
        return
    raise DivergedError(
        "training diverged in its last step: a weight is not finite; "
        f"lower learning_rate={recipe.learning_rate:g}, or set clip_norm"
    )
