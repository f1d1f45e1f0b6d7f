"""Which examples a filter drops, given how suspicious each is."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from unlearnkit.base import Cost, Dataset, DefenceInfo, Defended, Model, SolveInfo, Variables
from unlearnkit.training import DivergedError
from unlearnkit.validation import check_compatible, check_dataset, check_variables


class DefenceWarning(UserWarning):
    """A defence's result is less exact than asked for."""


@dataclasses.dataclass(frozen=True)
class DropSettings:
    """A share of the examples is dropped: those of the highest scores.

    Attributes:
      fraction: the share, in (0, 1), rounded to whole examples. Lu et al. 2022 drop the 3 % by
        which the attacker enlarged the training set.
      per_class: whether that share of each class is dropped, else of all examples together.
    """

    fraction: float = 0.03
    per_class: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must be in (0, 1), got {self.fraction}")

    def groups(self, labels: Int[np.ndarray, " n"]) -> list[np.ndarray]:
        """Returns the rows of each class, or all rows as one group."""
        if not self.per_class:
            return [np.arange(len(labels))]
        return [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def drop(self, scores: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> np.ndarray:
        """Returns the rows of the highest scores; of equal scores the first are dropped."""
        dropped = [
            rows[highest(scores[rows], round(self.fraction * len(rows)))]
            for rows in self.groups(labels)
        ]
        return np.concatenate(dropped)


def highest(scores: Float[np.ndarray, " n"], count: int) -> Int[np.ndarray, " m"]:
    """Returns the positions of the `count` highest scores."""
    return np.argsort(-scores, kind="stable")[:count]


def check_input(model: Model, variables: Variables, dataset: Dataset) -> None:
    """Raises an error if data or weights do not fit the model.

    Raises:
      TypeError: see `check_dataset`.
      ValueError: see `check_dataset`, `check_compatible` and `check_variables`.
    """
    check_dataset(dataset)
    check_compatible(dataset, model)
    check_variables(variables, model)


def finish(
    dropped: Int[np.ndarray, " m"],
    scores: Any,
    dataset: Dataset,
    cost: Cost,
    *,
    history: Mapping[str, Any] | None = None,
    solves: Mapping[str, SolveInfo] | None = None,
) -> Defended:
    """Returns what a filter decided.

    Raises:
      ValueError: all examples of a class would be dropped.
      DivergedError: a score is not finite.
    """
    scores = jnp.asarray(scores)
    if not bool(jnp.all(jnp.isfinite(scores))):
        raise DivergedError("a score is not finite; train the network again, its weights diverged")
    keep = np.ones(dataset.size, bool)
    keep[dropped] = False
    refuse_lost_classes(keep, np.asarray(dataset.y))
    info = DefenceInfo(cost, dict(history or {}), dict(solves or {}))
    return Defended(jnp.asarray(keep), scores, info)


def refuse_lost_classes(keep: Bool[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> None:
    """Raises `ValueError` if a class of the training set has no example left."""
    before, after = np.unique(labels, return_counts=True), np.unique(labels[keep])
    for label, count in zip(*before, strict=True):
        if label not in after:
            raise ValueError(
                f"the defence would drop all {count} examples of class {label}, and no network "
                "could learn it; drop fewer examples, or a share of each class"
            )


def warn_unconverged(name: str, info: SolveInfo, remedy: str) -> None:
    """Warns if a solve ended above its tolerance."""
    if not bool(info.converged):
        warnings.warn(
            f"{name} did not converge: relative residual {float(info.residual):.2g} after "
            f"{int(info.steps)} steps; {remedy}",
            DefenceWarning,
            stacklevel=3,
        )
