"""Targets: examples that an attacker wants misclassified."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from unlearnkit.base import Dataset
from unlearnkit.host.random import host_key
from unlearnkit.rows import check_rows


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
    drawn = own[host_key(key).permutation(len(own))[:m]]
    return jnp.asarray(np.sort(drawn), jnp.int32)
