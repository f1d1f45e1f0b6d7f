"""Which examples each pass of an unlearner sees, told by their first pixel."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from unlearnkit.base import Dataset
from unlearnkit.training import take_steps
from unlearnkit.unlearning import _passes


class Seen(NamedTuple):
    """One pass.

    Attributes:
      pixels: [steps, batch] the first pixel of each example.
      labels: [steps, batch] what stands in the place of its label.
    """

    pixels: np.ndarray
    labels: np.ndarray


def watch(monkeypatch):
    """Returns the list to which each pass from now on adds what it saw."""
    seen = []

    def spy(state, dataset, rows, *rest, **options):
        first = np.asarray(dataset.x).reshape(len(dataset.x), -1)[:, 0]
        seen.append(Seen(first[rows], np.asarray(dataset.y)[rows]))
        return take_steps(state, dataset, rows, *rest, **options)

    monkeypatch.setattr(_passes, "take_steps", spy)
    return seen


def numbered(n, first=0, *, features=4):
    """Returns n examples of 3 classes whose pixels are their number, from `first` on."""
    x = jnp.arange(first, first + n, dtype=jnp.float32)[:, None] * jnp.ones((1, features))
    return Dataset(x, jnp.arange(n, dtype=jnp.int32) % 3)
