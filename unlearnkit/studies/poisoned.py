"""The tasks of a poison study: of the clean data, and of forgetting the poisons."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Dataset, Poisoned, Task
from unlearnkit.data import IndexForget, choose_split


def clean_task(key: Key[Array, ""], train: Dataset, test: Dataset) -> Task:
    """Returns a task with `task.train` as `train` is, row by row: nothing is forgotten yet.

    Args:
      key: halves the test set.
      train: the training set.
      test: held-out examples.
    """
    return choose_split(key, train, test, IndexForget((train.size - 1,))).task(train, test)


def poisoned_task(poisoned: Poisoned, validation: Dataset, test: Dataset) -> Task:
    """Returns the task of forgetting all poisons of a training set, U = S_poison.

    Args:
      poisoned: a training set and which of its n examples are poisons.
      validation: clean examples that no method trains on.
      test: clean examples to judge by.

    Raises:
      ValueError: no poisons, or nothing but poisons.
    """
    is_poison = np.asarray(poisoned.is_poison)
    if not 0 < is_poison.sum() < len(is_poison):
        raise ValueError(
            f"there must be poisons and clean examples, but {int(is_poison.sum())} of "
            f"{len(is_poison)} are poisons; choose another budget of the attack"
        )
    retain, forget = (
        poisoned.dataset.take(np.flatnonzero(rows)) for rows in (~is_poison, is_poison)
    )
    return Task(retain, forget, validation, test)
