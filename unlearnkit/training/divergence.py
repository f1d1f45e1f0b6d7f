"""What a training run says when it has diverged."""

from __future__ import annotations

import numpy as np

from unlearnkit.base import Variables
from unlearnkit.training.recipe import Recipe
from unlearnkit.validation import all_finite


class DivergedError(FloatingPointError):
    """The loss or a weight is no longer finite, or the network is lost in another way."""


def refuse_divergence(losses: float | np.ndarray, epoch: int, recipe: Recipe) -> None:
    """Raises `DivergedError` where a loss of the epoch (from 0) is not finite.

    Args:
      losses: of the epoch, one or several.
      epoch: its number, from 0.
      recipe: whose learning rate the message names.
    """
    if np.all(np.isfinite(losses)):
        return
    raise DivergedError(
        f"training diverged in epoch {epoch + 1}: loss {losses}; "
        f"lower learning_rate={recipe.learning_rate:g}, or set clip_norm"
    )


def refuse_infinite_weights(variables: Variables, recipe: Recipe) -> None:
    """Raises `DivergedError` where a weight is not finite."""
    if all_finite(variables):
        return
    raise DivergedError(
        "training diverged in its last step: a weight is not finite; "
        f"lower learning_rate={recipe.learning_rate:g}, or set clip_norm"
    )
