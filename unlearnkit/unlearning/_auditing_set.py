"""The auditing set of a task: who may be drawn, how many, and in which folds."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from unlearnkit.base import Dataset, Task, concatenate


class Pool(NamedTuple):
    """Whom an auditing set is drawn from: members first, then non-members.

    Attributes:
      dataset: the N examples.
      groups: [N] which group each belongs to; a balanced set holds as many of group 2k as of 2k+1.
      quotas: [G] how many of each group are drawn.
    """

    dataset: Dataset
    groups: Int[Array, " N"]
    quotas: Int[Array, " G"]


def make_pool(task: Task, *, folds: int, same_classes: bool, per_class: bool) -> tuple[Pool, int]:
    """Returns the pool of a task, and the size of the auditing sets drawn from it.

    Args:
      task: members are its forget set, non-members its validation set.
      folds: into which each auditing set is divided.
      same_classes: non-members are of the classes of the forget set only.
      per_class: balance, and fold, each class of its own.

    Raises:
      ValueError: fewer members or non-members than folds.
    """
    forgotten = np.asarray(task.forget.y)
    classes = np.unique(forgotten)
    others, remedy = task.validation, "a larger validation set"
    if same_classes or per_class:
        kept = np.flatnonzero(np.isin(np.asarray(others.y), classes))
        others = others.take(kept)
        remedy = "same_classes=False and per_class=False, or keep these classes in the held-out set"
    labels = np.concatenate([forgotten, np.asarray(others.y)])
    stranger = np.arange(len(labels)) >= len(forgotten)
    strata = np.searchsorted(classes, labels) if per_class else np.zeros(len(labels), int)
    groups = 2 * strata + stranger
    counts = np.bincount(groups, minlength=2 * (int(strata.max()) + 1)).reshape(-1, 2)
    least = counts.min(axis=1)
    if least.min() < folds:
        worst = int(least.argmin())
        where = f" in class {classes[worst]}" if per_class else ""
        raise ValueError(
            f"{folds} folds need at least {folds} members (forget) and non-members (validation) "
            f"each, so that each fold holds two samples or more; got {counts[worst, 0]} and "
            f"{counts[worst, 1]}{where}; choose fewer folds, {remedy}"
        )
    quotas = np.repeat(least, 2)
    pool = Pool(
        concatenate(task.forget, others),
        jnp.asarray(groups, jnp.int32),
        jnp.asarray(quotas, jnp.int32),
    )
    return pool, int(quotas.sum())


def draw(
    key: Key[Array, ""], pool: Pool, size: int, folds: int
) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """Returns a random auditing set as indices into the pool, and the fold of each example.

    Every group gives its quota, spread evenly over the folds.

    Args:
      key: decides both.
      pool: whom to draw from.
      size: the sum of the quotas.
      folds: their number.
    """
    shuffle = jax.random.uniform(key, pool.groups.shape)
    order = jnp.lexsort((shuffle, pool.groups))
    ordered = pool.groups[order]
    rank = jnp.arange(len(ordered)) - jnp.searchsorted(ordered, ordered)
    (chosen,) = jnp.nonzero(rank < pool.quotas[ordered], size=size)
    return order[chosen], rank[chosen] % folds
