"""The auditing set of a task: who may be drawn, how many, and in which folds."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Dataset, Task, concatenate

DEFAULT_FOLDS = 3
"""The default number of folds."""
FEW_OTHERS = 30
"""Non-members beside fewer members than that need folds: enough to tell what is usual."""


class Pool(NamedTuple):
    """The examples that an auditing set is drawn from: members, then non-members.

    Attributes:
      dataset: the N examples.
      groups: [N] which group each belongs to; a balanced set holds as many of group 2k as of 2k+1.
      quotas: [G] how many of each group are drawn.
      weights: [G] what an example of each group weighs; members and non-members weigh alike.
    """

    dataset: Dataset
    groups: Int[Array, " N"]
    quotas: Int[Array, " G"]
    weights: Float[Array, " G"]


class Drawn(NamedTuple):
    """A pool, and how auditing sets are drawn from it.

    Attributes:
      pool: whom they are drawn from.
      size: of each set.
      folds: of each set; 1 where a single member is both learned from and judged.
    """

    pool: Pool
    size: int
    folds: int


def make_pool(task: Task, *, folds: int | None, same_classes: bool, per_class: bool) -> Drawn:
    """Returns the pool of a task, and the size and the folds of the auditing sets drawn from it.

    A set is balanced. Where `folds` is None and there are fewer than 3 members (of a class), each
    fold holds out one (leave one out); the set holds up to 30 non-members, which weigh together
    what the members weigh. Of a single member nothing can be held out: the auditor is then judged
    on what it was fitted to.

    Args:
      task: members are its forget set, non-members its validation set.
      folds: into which each auditing set is divided; None takes 3, or as many as there are members.
      same_classes: non-members are of the classes of the forget set only.
      per_class: balance, and fold, each class of its own.

    Raises:
      ValueError: fewer members or non-members than explicit folds; no non-members.
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
    wanted = DEFAULT_FOLDS if folds is None else folds
    if folds is None and 0 < least.min() < DEFAULT_FOLDS:
        wanted = int(least.min())
        most = np.minimum(counts, np.maximum(counts[:, :1], FEW_OTHERS))
    elif least.min() >= wanted:
        most = np.repeat(least[:, None], 2, axis=1)
    else:
        worst = int(least.argmin())
        where = f" in class {classes[worst]}" if per_class else ""
        raise ValueError(
            f"{wanted} folds need at least {wanted} members (forget) and non-members (validation) "
            f"each, so that each fold holds two samples or more; got {counts[worst, 0]} and "
            f"{counts[worst, 1]}{where}; choose fewer folds, {remedy}"
        )
    weights = most.max(axis=1, keepdims=True) / most
    pool = Pool(
        concatenate(task.forget, others),
        jnp.asarray(groups, jnp.int32),
        jnp.asarray(most.ravel(), jnp.int32),
        jnp.asarray(weights.ravel(), jnp.float32),
    )
    return Drawn(pool, int(most.sum()), wanted)


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
