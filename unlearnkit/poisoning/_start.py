"""Poisons of another attack as the start of one that moves them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import FROM_SCRATCH, Attack, Model, Task, Variables


class Start(NamedTuple):
    """Poisons that keep their labels.

    Attributes:
      base: [m] the rows that they stand for.
      x: [m, ...] what they show.
    """

    base: Int[Array, " m"]
    x: Float[Array, "m ..."]


def check_start(start: Attack | None) -> None:
    """Raises TypeError if a start is no attack.

    Args:
      start: of an attack that moves poisons, None for the training examples themselves.
    """
    if start is not None and not isinstance(start, Attack):
        raise TypeError(f"start must be an attack, as Subpopulation(), or None, got {start!r:.100}")


def start_from(
    start: Attack, key: Key[Array, ""], model: Model, variables: Variables, task: Task, m: int
) -> Start:
    """Returns the poisons of an attack, for another to move.

    Args:
      start: the attack that makes them.
      key: drives it.
      model: the victim's network.
      variables: trained on clean data.
      task: `train` is what is poisoned.
      m: poisons of the attack that moves them.

    Raises:
      ValueError: another number of poisons, poisons made of no example, or other labels than those
        of the examples that they stand for.
    """
    poisoned = start(key, model, variables, task)
    base, name = np.asarray(poisoned.info.base), type(start).__name__
    if len(base) != m:
        raise ValueError(
            f"start={name} makes {len(base)} poisons, and budget is of {m}; give both one budget"
        )
    if np.any(base == FROM_SCRATCH):
        raise ValueError(f"start={name} makes poisons of no example, so that they keep no label")
    rows = np.flatnonzero(poisoned.is_poison)
    changed = int(np.sum(np.asarray(poisoned.dataset.y)[rows] != np.asarray(task.train.y)[base]))
    if changed:
        raise ValueError(
            f"start={name} changes the labels of {changed} of {m} poisons, which this attack "
            "keeps; take one that keeps labels, as Subpopulation"
        )
    return Start(poisoned.info.base, poisoned.dataset.x[rows])
