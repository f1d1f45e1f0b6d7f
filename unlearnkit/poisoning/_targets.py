"""Targets: examples that an attacker wants misclassified."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from unlearnkit.base import Dataset, Model, Variables
from unlearnkit.host import choose_rows
from unlearnkit.rows import check_rows
from unlearnkit.training import predict


def check_targets(
    targets: Sequence[int], adversarial_class: int | None, validation: Dataset, n_classes: int
) -> None:
    """Raises ValueError if targets are missing, or of the adversarial class already.

    Raises:
      ValueError: either, or a class that is not one.
    """
    wanted = adversarial_class
    rows = check_rows(targets, validation.size, name="targets", of="task.validation")
    if wanted is None or not 0 <= wanted < n_classes:
        raise ValueError(f"adversarial_class must be in 0 … {n_classes - 1}, got {wanted}")
    already = rows[np.asarray(validation.y)[rows] == wanted]
    if len(already):
        raise ValueError(
            f"targets must not be of the adversarial class {wanted} already, row "
            f"{already[0]} is ({len(already)} such); leave them out"
        )


def check_right(
    rows: Int[np.ndarray, " t"], model: Model, variables: Variables, validation: Dataset
) -> None:
    """Raises ValueError if the clean network gets a target wrong without any poison.

    Args:
      rows: of the targets.
      model: the network.
      variables: trained on clean examples.
      validation: holds the targets.

    Raises:
      ValueError: a target that is misclassified.
    """
    chosen = validation.take(rows)
    predicted, y = predicted_classes(model, variables, chosen), np.asarray(chosen.y)
    if len(wrong := np.flatnonzero(predicted != y)):
        first = wrong[0]
        raise ValueError(
            f"targets must be what the clean network gets right, it takes row {rows[first]} of "
            f"class {y[first]} for class {predicted[first]} ({len(wrong)} such): no poison is "
            "needed there; leave them out"
        )


def predicted_classes(
    model: Model, variables: Variables, dataset: Dataset
) -> Int[np.ndarray, " n"]:
    """Returns the class that a network takes each example for."""
    found: np.ndarray = np.asarray(predict(model, variables, dataset.x)).argmax(-1)
    return found


def rows_of_class(key: Key[Array, ""], clean: Dataset, label: int, m: int) -> Int[Array, " m"]:
    """Returns m rows of one class, drawn without replacement, ascending.

    Raises:
      ValueError: the class has fewer examples.
    """
    own = np.flatnonzero(np.asarray(clean.y) == label)
    if len(own) < m:
        raise ValueError(
            f"the training set has {len(own)} examples of class {label}, "
            f"fewer than the {m} poisons of the budget; lower it"
        )
    return jnp.asarray(own, jnp.int32)[choose_rows(key, len(own), m)]
