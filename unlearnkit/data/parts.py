"""Parts of a dataset: some of its examples, or of its classes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from unlearnkit.base import Dataset


def draw_order(dataset: Dataset) -> Int[np.ndarray, " n"]:
    """Returns the rows of a dataset in a random order, which is always the same: no run decides it.

    Example:
      few = train.take(data.draw_order(train)[:100])
    """
    return np.asarray(jax.random.permutation(jax.random.key(0), dataset.size))


def subset(dataset: Dataset, count: int | None) -> Dataset:
    """Returns a random part of a dataset in the order of its rows, always the same for a count.

    Args:
      dataset: [n] examples.
      count: of examples; None, or n and more, for all of them.

    Example:
      few = data.subset(train, 1000)
    """
    if count is None or count >= dataset.size:
        return dataset
    return dataset.take(np.sort(draw_order(dataset)[:count]))


def keep_classes(dataset: Dataset, classes: Sequence[int]) -> Dataset:
    """Returns the examples of some classes, which are numbered anew in the order given.

    Args:
      dataset: [n] examples.
      classes: two or more.

    Raises:
      ValueError: fewer than two classes, a class twice, or one without examples.

    Example:
      ones_and_sevens = data.keep_classes(train, (1, 7))
    """
    y = np.asarray(dataset.y)
    missing = [label for label in classes if not np.any(y == label)]
    if len(classes) < 2 or len(set(classes)) < len(classes) or missing:
        raise ValueError(
            f"classes must be two or more different ones of the dataset, got {tuple(classes)}; it "
            f"has {np.unique(y).tolist()}"
        )
    rows = np.flatnonzero(np.isin(y, classes))
    numbers = np.argmax(y[rows, None] == np.asarray(classes), axis=1)
    return dataset.take(rows)._replace(y=jnp.asarray(numbers, jnp.int32))
