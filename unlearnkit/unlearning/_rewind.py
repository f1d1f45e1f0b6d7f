"""The choice among the networks of all epochs (SCRUB's rewinding)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from unlearnkit.base import Dataset, Model, Task, Unlearned, Variables
from unlearnkit.training import predict


class Rewind:
    """Keeps the network of every epoch, and at the end chooses one.

    The one whose error on the forget set is closest to the error of the last one on the validation
    examples of the forget set's classes: a network that errs more than this on what it forgot tells
    an attacker that it forgot it.

    Raises:
      ValueError: no validation example is of a class of the forget set.

    Source: Kurmanji et al. 2023 (SCRUB+R).
    """

    def __init__(self, model: Model, task: Task) -> None:
        self._model = model
        self._forget = task.forget
        self._held_out = task.validation.take(_held_out(task))
        self._networks: list[Variables] = []

    def __call__(self, variables: Variables) -> dict[str, float]:
        """Keeps a copy of the network; returns its errors."""
        self._networks.append(jax.tree.map(jnp.array, variables))
        return {
            "forget_error": self._error(variables, self._forget),
            "validation_error": self._error(variables, self._held_out),
        }

    def choose(self, unlearned: Unlearned) -> Unlearned:
        """Returns the unlearned network after the epoch that rewinding chooses."""
        history = unlearned.info.history
        distance = np.abs(
            np.asarray(history["forget_error"]) - float(history["validation_error"][-1])
        )
        chosen = int(np.flatnonzero(distance == distance.min())[-1])
        kept = jnp.arange(len(self._networks)) == chosen
        info = unlearned.info._replace(history={**history, "kept": kept})
        return Unlearned(self._networks[chosen], info)

    @staticmethod
    def size(task: Task) -> int:
        """Returns how many examples are looked at after each epoch.

        Raises:
          ValueError: no validation example is of a class of the forget set.
        """
        return task.forget.size + _held_out(task).size

    def _error(self, variables: Variables, dataset: Dataset) -> float:
        logits = predict(self._model, variables, dataset.x)
        return float(jnp.mean(jnp.argmax(logits, -1) != dataset.y))


def _held_out(task: Task) -> Int[np.ndarray, " m"]:
    """Returns the rows of the validation examples of the forget set's classes."""
    classes = np.unique(np.asarray(task.forget.y))
    rows = np.flatnonzero(np.isin(np.asarray(task.validation.y), classes))
    if rows.size == 0:
        raise ValueError(
            f"rewind needs validation examples of the forget set's classes "
            f"{classes.tolist()}, got none; set rewind=False, or add such examples"
        )
    return rows
