"""Drops the examples whose neighbours among the activations have another label (deep k-NN)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Key
from sklearn.neighbors import NearestNeighbors

from unlearnkit.base import Cost, Dataset, Defended, Model, Variables
from unlearnkit.costs import FORWARD, Stopwatch
from unlearnkit.defences._dropping import check_input, finish
from unlearnkit.defences._features import Features, activations
from unlearnkit.trials import DefenceTrial
from unlearnkit.validation import check_at_least


@dataclasses.dataclass(frozen=True)
class DeepKnn:
    """Drops the examples whose label is not the commonest among their nearest neighbours.

    s_i = max_{c ≠ y_i} k_c / k - k_{y_i} / k,   k_c of the k nearest have label c;   drop s_i > 0

    Nearest in Euclidean distance of the penultimate activations; an example is no neighbour of
    itself.

    Attributes:
      k: neighbours asked, best more than twice the number of poisons of a class.
      features: (variables, x) -> [n, d] in place of the penultimate activations.

    Example:
      defend = defences.DeepKnn(k=50)
      keep, scores, info = defend(key, model, variables, train)

    Cost: a look at each example, a third of an example-gradient.

    Source: Peri et al. 2020, Deep k-NN defense against clean-label data poisoning attacks.
    """

    k: int = 50
    features: Features | None = None

    trial: ClassVar[DefenceTrial] = DefenceTrial(
        small={"k": 31}, deterministic=True, across_classes=True
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "k")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, dataset: Dataset
    ) -> Defended:
        """Returns which examples to keep; the key is not used.

        Raises:
          ValueError: data or variables that do not fit the model, features that are not [n, d],
            no more than k examples, or a class that would vanish.
          DivergedError: a feature is not finite.
        """
        check_input(model, variables, dataset)
        if self.k >= dataset.size:
            raise ValueError(
                f"k must be < {dataset.size}, the number of examples, got {self.k}; ask fewer"
            )
        labels = np.asarray(dataset.y)
        with Stopwatch() as watch:
            h = activations(self.features, model, variables, dataset)
            neighbours = (
                NearestNeighbors(n_neighbors=self.k).fit(h).kneighbors(return_distance=False)
            )
            scores = _disagreement(labels[neighbours], labels, model.n_classes)
        cost = Cost(dataset.size * FORWARD, watch.seconds, watch.compile_seconds)
        return finish(np.flatnonzero(scores > 0), scores, dataset, cost)


def _disagreement(votes: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Returns by how large a share of the votes another class leads the own one, [n]."""
    n, k = votes.shape
    places = np.arange(n)[:, None] * n_classes + votes
    counts = np.bincount(places.reshape(-1), minlength=n * n_classes).reshape(n, n_classes)
    own = counts[np.arange(n), labels]
    counts[np.arange(n), labels] = -1
    found: np.ndarray = (counts.max(axis=1) - own) / k
    return found
