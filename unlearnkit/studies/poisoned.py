"""The tasks of a poison study: of the clean data, and of forgetting the poisons."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Dataset, Poisoned, Task, concatenate
from unlearnkit.data import ClassForget, ForgetRequest, IndexForget, Split, choose_split
from unlearnkit.host.random import host_key
from unlearnkit.studies.study import Pair


def ask(key: Key[Array, ""], pair: Pair, request: ForgetRequest) -> tuple[Split, Task]:
    """Returns what is to be forgotten of a dataset, as rows and as a task.

    Of a dataset with a validation set of its own, the split's rows of the test set mean nothing:
    the test set stays whole, but for a class that the request takes from held-out data.

    Args:
      key: chooses.
      pair: the dataset.
      request: what is to be forgotten.

    Raises:
      ValueError: see `choose_split`.
    """
    split = choose_split(key, pair.train, pair.test, request)
    task = split.task(pair.train, pair.test)
    if pair.validation is None:
        return split, task
    gone = request.label if isinstance(request, ClassForget) and not request.in_test else None
    kept = [
        part if gone is None else part.take(np.flatnonzero(np.asarray(part.y) != gone))
        for part in (pair.validation, pair.test)
    ]
    return split, Task(task.retain, task.forget, *kept)


def clean_task(key: Key[Array, ""], pair: Pair) -> Task:
    """Returns a task with `task.train` as the training set is, row by row: nothing is forgotten.

    Args:
      key: halves the test set, where the dataset has no validation set of its own.
      pair: the dataset.
    """
    return ask(key, pair, IndexForget((pair.train.size - 1,)))[1]


def partial_task(key: Key[Array, ""], task: Task, share: float) -> Task:
    """Returns the task of forgetting a random share of the poisons (corrective unlearning).

    Those that nobody identified are to be retained, with the clean examples before them. Of one key
    a smaller share is a part of a larger one.

    Args:
      key: chooses.
      task: of forgetting all m poisons, as by `poisoned_task`.
      share: in (0, 1]; ⌊share m⌉ poisons are identified.

    Raises:
      ValueError: a share outside its range, or so small that it holds no poison.

    Source: Goel et al. 2024, corrective machine unlearning.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], a part of the poisons, got {share}")
    m = task.forget.size
    count = round(share * m)
    if count < 1:
        raise ValueError(
            f"share={share:g} of {m} poisons is none: there would be nothing to forget; choose a "
            f"share of at least {1 / m:g}"
        )
    if count == m:
        return task
    order = host_key(key).permutation(m)
    found, missed = (task.forget.take(np.sort(part)) for part in (order[:count], order[count:]))
    return task._replace(retain=concatenate(task.retain, missed), forget=found)


def poisoned_task(
    poisoned: Poisoned, validation: Dataset, test: Dataset, *, may_be_all: bool = False
) -> Task:
    """Returns the task of forgetting all poisons of a training set, U = S_poison.

    Args:
      poisoned: a training set and which of its n examples are poisons.
      validation: clean examples that no method trains on.
      test: clean examples to judge by.
      may_be_all: whether all examples may be poisons; then nothing would be retained.

    Raises:
      ValueError: no poisons, or nothing but poisons.
    """
    is_poison = np.asarray(poisoned.is_poison)
    if not 0 < is_poison.sum() < len(is_poison) + may_be_all:
        raise ValueError(
            f"there must be poisons and clean examples, but {int(is_poison.sum())} of "
            f"{len(is_poison)} are poisons; choose another budget of the attack"
        )
    retain, forget = (
        poisoned.dataset.take(np.flatnonzero(rows)) for rows in (~is_poison, is_poison)
    )
    return Task(retain, forget, validation, test)
