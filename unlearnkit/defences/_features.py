"""The space in which the defences that look at activations compare examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from unlearnkit.base import Dataset, Model, Variables
from unlearnkit.training import DivergedError, penultimate

Features = Callable[[Variables, Array], Array]
"""(variables, x [n, ...]) -> [n, d]."""


def activations(
    features: Features | None, model: Model, variables: Variables, dataset: Dataset
) -> Float[np.ndarray, "n d"]:
    """Returns the features of every example on the host: the penultimate activations by default.

    Raises:
      ValueError: the network has no such activations, or a user's features are not [n, d].
      DivergedError: a feature is not finite.
    """
    found: Any = (
        penultimate(model, variables, dataset.x)
        if features is None
        else features(variables, dataset.x)
    )
    rows = np.asarray(found)
    if rows.ndim != 2 or rows.shape[0] != dataset.size:
        raise ValueError(
            f"features must map {dataset.size} examples to [{dataset.size}, d], "
            f"got {list(rows.shape)}"
        )
    if not np.all(np.isfinite(rows)):
        raise DivergedError(
            "a feature is not finite; train the network again, its weights diverged"
        )
    return rows
