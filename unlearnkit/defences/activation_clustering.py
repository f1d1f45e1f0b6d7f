"""Drops the smaller of two clusters of a class's activations, where it looks like poison."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from unlearnkit.base import Cost, Dataset, Defended, Model, Variables
from unlearnkit.costs import FORWARD, Stopwatch
from unlearnkit.defences._dropping import check_input, finish
from unlearnkit.defences._features import Features, activations
from unlearnkit.trials import DefenceTrial
from unlearnkit.validation import check_at_least

RANK_TOLERANCE = 1e-6
"""Spread, relative to the largest, below which a component of float32 activations is rounding."""


@dataclasses.dataclass(frozen=True)
class ActivationClustering:
    """Splits the penultimate activations of each class in two, and drops a small, distinct part.

    The activations of a class are projected on their first principal components, scaled to unit
    variance and split by 2-means. The smaller cluster is dropped where it holds less than `size` of
    the class and the silhouette of the split exceeds `silhouette`: an unpoisoned class splits into
    halves that overlap.

    s_i = ‖z_i - c_large‖ - ‖z_i - c_small‖,   of an example in the small cluster above 0

    Attributes:
      components: principal components kept, at most as many as the class has.
      whiten: whether they are scaled to unit variance, as ICA does.
      size: the largest share of its class that a dropped cluster may have, in (0, 0.5].
      silhouette: the least mean silhouette of a split that is taken for poison, in [-1, 1].
      silhouette_examples: examples of a class over which the silhouette is averaged; its cost is
        their square.
      restarts: of 2-means; the best is kept.
      features: (variables, x) -> [n, d] in place of the penultimate activations.

    Example:
      defend = defences.ActivationClustering(components=10)
      keep, scores, info = defend(key, model, variables, train)

    Cost: a look at each example, a third of an example-gradient.

    Source: Chen et al. 2018, with their thresholds (relative size below 35 %, silhouette above
    0.10 ... 0.15 for poison). They project by ICA, whose components are the scaled principal ones
    rotated; 2-means sees distances alone, which no rotation changes.
    """

    components: int = 10
    whiten: bool = True
    size: float = 0.35
    silhouette: float = 0.1
    silhouette_examples: int = 2000
    restarts: int = 10
    features: Features | None = None

    trial: ClassVar[DefenceTrial] = DefenceTrial(small={"components": 2}, ranks_each_class=False)

    def __post_init__(self) -> None:
        if not 0 < self.size <= 0.5:
            raise ValueError(f"size must be in (0, 0.5], got {self.size}")
        if not -1 <= self.silhouette <= 1:
            raise ValueError(f"silhouette must be in [-1, 1], got {self.silhouette}")
        check_at_least(self, 1, "components", "restarts")
        check_at_least(self, 3, "silhouette_examples")

    def __call__(
        self, key: Key[Array, ""], model: Model, variables: Variables, dataset: Dataset
    ) -> Defended:
        """Returns which examples to keep; the key draws where 2-means begins.

        `info.history` holds per class of the training set `smaller_share` and `silhouette`; a class
        with fewer than 3 distinct examples is kept whole, with 0 for both.

        Raises:
          ValueError: data or variables that do not fit the model, or features that are not [n, d].
          DivergedError: a feature is not finite.
        """
        check_input(model, variables, dataset)
        labels, scores = np.asarray(dataset.y), np.zeros(dataset.size)
        dropped, shares, silhouettes = [np.arange(0)], [], []
        with Stopwatch() as watch:
            h = activations(self.features, model, variables, dataset)
            for label in np.unique(labels):
                rows = np.flatnonzero(labels == label)
                seed = int(jax.random.bits(jax.random.fold_in(key, int(label)))) % 2**31
                scores[rows], share, silhouette = self._split(h[rows], seed)
                shares.append(share)
                silhouettes.append(silhouette)
                if 0 < share < self.size and silhouette > self.silhouette:
                    dropped.append(rows[scores[rows] > 0])
        cost = Cost(dataset.size * FORWARD, watch.seconds, watch.compile_seconds)
        history = {
            "smaller_share": jnp.asarray(shares, float),
            "silhouette": jnp.asarray(silhouettes, float),
        }
        return finish(np.concatenate(dropped), scores, dataset, cost, history=history)

    def _split(self, h: np.ndarray, seed: int) -> tuple[np.ndarray, float, float]:
        """Returns the scores of a class, its smaller cluster's share, and the silhouette."""
        if len(np.unique(h, axis=0)) < 3:
            return np.zeros(len(h)), 0.0, 0.0
        z = self._project(h, seed)
        means = KMeans(2, n_init=self.restarts, random_state=seed).fit(z)
        small = int(np.argmin(np.bincount(means.labels_, minlength=2)))
        distances = means.transform(z)
        scores = distances[:, 1 - small] - distances[:, small]
        sample = np.random.default_rng(seed).permutation(len(z))[: self.silhouette_examples]
        if len(np.unique(means.labels_[sample])) < 2:
            return scores, float(np.mean(scores > 0)), 0.0
        silhouette = silhouette_score(z[sample], means.labels_[sample])
        return scores, float(np.mean(scores > 0)), float(silhouette)

    def _project(self, h: np.ndarray, seed: int) -> np.ndarray:
        """Returns the coordinates in which the class is split, [n, d]."""
        pca = PCA(min(self.components, *h.shape), random_state=seed)
        z = pca.fit_transform(h.astype(np.float64))
        spread = z.std(axis=0)
        real = spread > RANK_TOLERANCE * spread[0]  # scaled rounding would count as a component
        found: np.ndarray = z[:, real] / spread[real] if self.whiten else z[:, real]
        return found
