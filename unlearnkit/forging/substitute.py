"""Substitution of the forgotten examples alone: all others of the logged batch stay."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Cost, Dataset, Forged, Model
from unlearnkit.costs import Stopwatch
from unlearnkit.forging.steps import BatchLoss, LoggedBatch, Step, check_forgeable, step_error
from unlearnkit.kernels import GradientOperator, gram
from unlearnkit.validation import check_at_least

_ROUNDING = 1e-6
"""An exchange counts if the score falls by more than this share."""


class SubstitutionInfo(NamedTuple):
    """How a substitution went.

    Attributes:
      places: [m] of the forgotten examples in the batch.
      indices: [m] the examples of `allowed` that stand there now.
      start: the error at the start, by the Gram matrix.
      swaps: how many exchanges followed.
      cost: what it took.
    """

    places: Int[np.ndarray, " m"]
    indices: Int[np.ndarray, " m"]
    start: float
    swaps: int
    cost: Cost


@dataclasses.dataclass(frozen=True)
class SubstitutionForger:
    """Replaces the forgotten examples U of the logged batch, and keeps all others.

      S* = argmin_S (η / b) ‖Σ_{i ∈ S} ∇ℓ_i - Σ_{u ∈ U} ∇ℓ_u‖₂,   |S| = |U| = m

    over sets of the candidates, by the Gram matrix of their gradients and U's. Only m of the b
    terms of the step change, and a network that has learned its examples has small gradients at
    most of them: the error falls as training goes on, where that of a whole other batch does not.
    It starts at the nearest candidate that is left for each u in turn, and exchanges one for
    another, each time the best, while the error falls. With m = 1 it finds the best candidate.

    A step must bring its batch: `honest_step(..., forget=...)`; `forge_trajectory` sees to it.
    Candidates that stand in the kept part of the batch already are left out.

    Attributes:
      candidates: allowed examples that are drawn; all where there are fewer.

    Example:
      forge = forging.SubstitutionForger(candidates=200)
      step = forging.honest_step(model, variables, batch, learning_rate=0.01, forget=np.array([3]))
      batch, error, info = forge(key, model, step, allowed)

    Source: ours; the criterion is that of Thudi et al. 2022, who replace whole batches.
    """

    candidates: int = 200

    def __post_init__(self) -> None:
        check_at_least(self, 1, "candidates")

    def __call__(self, key: Key[Array, ""], model: Model, step: Step, allowed: Dataset) -> Forged:
        """Returns the logged batch with its forgotten examples replaced.

        Args:
          key: draws the candidates.
          model: the network; its batch gradient must be the mean of its examples'.
          step: to be taken by another batch, with its `logged` one.
          allowed: examples; those to be forgotten are not among them.

        Raises:
          ValueError: a step without its batch, fewer candidates than forgotten examples, or see
            `unlearnkit.forging.steps.check_forgeable`.
        """
        logged = step.logged
        if logged is None:
            raise ValueError(
                "SubstitutionForger needs the logged batch and which of its examples are "
                "forgotten; make the step by honest_step(..., forget=places)"
            )
        check_forgeable(model, step, allowed)
        places = np.flatnonzero(logged.forget)
        with Stopwatch() as watch:
            drawn = self._draw(key, logged, allowed)
            if len(drawn) < len(places):
                raise ValueError(
                    f"the batch holds {len(places)} forgotten examples, but there are "
                    f"{len(drawn)} candidates; raise candidates={self.candidates}, or allow more"
                )
            candidates = allowed.take(drawn)
            products = _products(model, step, candidates, logged.batch)
            chosen, score, swaps = _search(products, len(drawn), len(drawn) + places)
            batch = _replace(logged.batch, places, candidates, chosen)
            error = step_error(model, step, batch)
            jax.block_until_ready(error)
        spent = float(len(drawn) + 2 * step.batch_size)
        cost = Cost(spent, watch.seconds, watch.compile_seconds)
        start = step.learning_rate / step.batch_size * math.sqrt(max(score, 0.0))
        return Forged(batch, error, SubstitutionInfo(places, drawn[chosen], start, swaps, cost))

    def _draw(
        self, key: Key[Array, ""], logged: LoggedBatch, allowed: Dataset
    ) -> Int[np.ndarray, " c"]:
        """Returns candidates, none of which is an example that stays in the batch."""
        contents = _contents(logged.batch)
        kept = {one for one, gone in zip(contents, logged.forget, strict=True) if not gone}
        order = np.asarray(jax.random.permutation(key, allowed.size))
        # Of so many, at least `candidates` are others, unless the data repeat themselves.
        order = order[: self.candidates + logged.batch.size]
        new = [content not in kept for content in _contents(allowed.take(order))]
        found: np.ndarray = order[np.array(new, bool)][: self.candidates]
        return found


def _contents(dataset: Dataset) -> list[bytes]:
    """Returns input and label of each example as bytes."""
    x, y = np.asarray(dataset.x), np.asarray(dataset.y)
    return [one.tobytes() + label.tobytes() for one, label in zip(x, y, strict=True)]


def _replace(
    batch: Dataset, places: np.ndarray, candidates: Dataset, chosen: np.ndarray
) -> Dataset:
    """Returns the batch with candidates at these places; made on the host, for any number."""
    x, y = np.array(batch.x), np.array(batch.y)
    x[places], y[places] = np.asarray(candidates.x)[chosen], np.asarray(candidates.y)[chosen]
    return batch._replace(x=jnp.asarray(x), y=jnp.asarray(y))


def _products(
    model: Model, step: Step, candidates: Dataset, batch: Dataset
) -> Float[np.ndarray, "n n"]:
    """Returns G_ij = ∇ℓ_i·∇ℓ_j of the candidates and the batch after them.

    Of the whole batch, so that one program serves all numbers of forgotten examples; about zero, so
    that small gradients have small errors.
    """
    together = candidates._replace(
        x=jnp.concatenate([candidates.x, batch.x]), y=jnp.concatenate([candidates.y, batch.y])
    )
    gradients = GradientOperator(BatchLoss(model), step.variables.params, together)
    return np.asarray(gram(gradients), np.float64)


def _search(
    products: Float[np.ndarray, "n n"], c: int, targets: Int[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " m"], float, int]:
    """Returns which of the first c points to take, ‖Σ_S - Σ_U‖² at the start, and the exchanges."""
    squares = np.diag(products)

    def pulls(chosen: np.ndarray) -> tuple[np.ndarray, float]:
        pull = products[chosen].sum(0) - products[targets].sum(0)
        return pull, float(pull[chosen].sum() - pull[targets].sum())

    chosen, swaps = _matched(products, c, targets), 0
    pull, score = pulls(chosen)
    first = score
    while True:
        change = squares[None, :c] + 2 * pull[None, :c] - 2 * products[chosen][:, :c]
        change += (squares - 2 * pull)[chosen][:, None]
        change[:, chosen] = np.inf
        leaves, enters = np.unravel_index(np.argmin(change), change.shape)
        exchanged = chosen.copy()
        exchanged[leaves] = enters
        pull, after = pulls(exchanged)
        # The score itself must fall, by more than its rounding, so that no set comes again.
        if not after < (1 - _ROUNDING) * score:
            return chosen, first, swaps
        chosen, score, swaps = exchanged, after, swaps + 1


def _matched(
    products: Float[np.ndarray, "n n"], c: int, targets: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " m"]:
    """Returns for each target in turn the nearest of the first c points that is left."""
    squares = np.diag(products)
    distances = squares[None, :c] + squares[targets, None] - 2 * products[targets, :c]
    chosen: list[int] = []
    for row in distances:
        row[chosen] = np.inf
        chosen.append(int(np.argmin(row)))
    return np.array(chosen)
