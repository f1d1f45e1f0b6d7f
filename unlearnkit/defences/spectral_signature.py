"""Drops the examples whose activations lie farthest along the direction of largest spread."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Key

from unlearnkit.base import Cost, Dataset, Defended, Model, SolveInfo, Variables
from unlearnkit.costs import FORWARD, Stopwatch
from unlearnkit.defences._dropping import DropSettings, check_input, finish, warn_unconverged
from unlearnkit.defences._features import Features, activations
from unlearnkit.defences._spread import spread_scores
from unlearnkit.trials import DefenceTrial
from unlearnkit.validation import check_above, check_at_least


@dataclasses.dataclass(frozen=True)
class SpectralSignature(DropSettings):
    """Drops outliers among the penultimate activations of each class.

    s_i = ((h_i - h̄)·v)²,   v the top right singular vector of the rows (h_i - h̄) of a class

    Attributes:
      features: (variables, x) -> [n, d] in place of the penultimate activations.
      tol: relative residual of v's eigenvalue problem.
      max_steps: the most steps of its Lanczos method.
      fraction, per_class: see `DropSettings`; by default 1.5 times 3 % of each class.

    Example:
      defend = defences.SpectralSignature(fraction=0.03)
      keep, scores, info = defend(key, model, variables, train)

    Cost: a look at each example, a third of an example-gradient.

    Source: Tran, Li and Madry 2018, algorithm 1: 1.5 times the expected share of poisons.
    """

    fraction: float = 0.045
    per_class: bool = True
    features: Features | None = None
    tol: float = 1e-3
    max_steps: int = 100

    trial: ClassVar[DefenceTrial] = DefenceTrial(small={"fraction": 0.15}, precision=0.3)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above(self, 0, "tol")
        check_at_least(self, 1, "max_steps")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, dataset: Dataset
    ) -> Defended:
        """Returns which examples to keep; the key draws where the searches begin.

        Raises:
          ValueError: data or variables that do not fit the model, features that are not [n, d], or
            a class that would vanish.
          DivergedError: a feature is not finite.
        """
        check_input(model, variables, dataset)
        labels, scores = np.asarray(dataset.y), np.zeros(dataset.size)
        solves: dict[str, SolveInfo] = {}
        with Stopwatch() as watch:
            h = activations(self.features, model, variables, dataset)
            for number, rows in enumerate(self.groups(labels)):
                scores[rows], info = self._score(jax.random.fold_in(key, number), h[rows])
                solves[f"group_{number}"] = info
        for name, info in solves.items():
            warn_unconverged(f"the search {name}", info, "allow more max_steps, or raise tol")
        cost = Cost(dataset.size * FORWARD, watch.seconds, watch.compile_seconds)
        return finish(self.drop(scores, labels), scores, dataset, cost, solves=solves)

    def _score(self, key: Key[Array, ""], h: np.ndarray) -> tuple[np.ndarray, SolveInfo]:
        centred = (h - h.mean(axis=0)).astype(np.float64)
        return spread_scores(
            key,
            lambda u: centred @ (u @ centred),
            len(h),
            tol=self.tol,
            max_steps=self.max_steps,
        )
