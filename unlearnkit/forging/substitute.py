"""Substitution of the forgotten examples alone: all others of the logged batch stay."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Cost, Dataset, Forged, Model
from unlearnkit.costs import Stopwatch
from unlearnkit.forging.steps import (
    LoggedBatch,
    Step,
    batch_gradient,
    centred_products,
    check_forgeable,
    step_error,
)
from unlearnkit.forging.swap import exchange, scores
from unlearnkit.validation import check_at_least


class SubstitutionInfo(NamedTuple):
    """How a substitution went.

    Attributes:
      places: [m] of the forgotten examples in the batch.
      indices: [m] the examples of `allowed` that stand there now.
      starts: [2] the error at each start, see `SubstitutionForger`.
      ends: [2] where exchanges led from there.
      cost: what it took.
    """

    places: Int[np.ndarray, " m"]
    indices: Int[np.ndarray, " m"]
    starts: Float[Array, " 2"]
    ends: Float[Array, " 2"]
    cost: Cost


@dataclasses.dataclass(frozen=True)
class SubstitutionForger:
    """Replaces the forgotten examples U of the logged batch, and keeps all others.

      S* = argmin_S (η / b) ‖Σ_{i ∈ S} ∇ℓ_i - Σ_{u ∈ U} ∇ℓ_u‖₂,   |S| = |U| = m

    over sets of the candidates. Only m of the b terms of the step change, and a network that has
    learned its examples has small gradients at most of them: the error falls as training goes on,
    where that of a whole other batch does not. It is the search of `SwapForger` around the mean
    gradient of U, from two starts: the m candidates nearest to that mean, and for each u in turn
    the nearest candidate that is left. With m = 1 it is the best candidate.

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
            chosen, starts, ends = _search(model, step, logged, allowed.take(drawn))
            indices = drawn[chosen]
            batch = _replace(logged.batch, places, allowed.take(indices))
            error = step_error(model, step, batch)
            jax.block_until_ready((error, starts, ends))
        spent = float(len(drawn) + 2 * step.batch_size + len(places))
        cost = Cost(spent, watch.seconds, watch.compile_seconds)
        return Forged(batch, error, SubstitutionInfo(places, indices, starts, ends, cost))

    def _draw(
        self, key: Key[Array, ""], logged: LoggedBatch, allowed: Dataset
    ) -> Int[np.ndarray, " c"]:
        """Returns candidates, none of which is an example that stays in the batch."""
        kept = set(_contents(logged.batch.take(np.flatnonzero(~logged.forget))))
        order = np.asarray(jax.random.permutation(key, allowed.size))
        # Of so many, at least `candidates` are others, unless the data repeat themselves.
        order = order[: self.candidates + len(kept)]
        new = [content not in kept for content in _contents(allowed.take(order))]
        found: np.ndarray = order[np.array(new, bool)][: self.candidates]
        return found


def _contents(dataset: Dataset) -> list[bytes]:
    """Returns input and label of each example as bytes."""
    x, y = np.asarray(dataset.x), np.asarray(dataset.y)
    return [one.tobytes() + label.tobytes() for one, label in zip(x, y, strict=True)]


def _replace(batch: Dataset, places: np.ndarray, others: Dataset) -> Dataset:
    x, y = (array.at[places].set(new) for array, new in ((batch.x, others.x), (batch.y, others.y)))
    return batch._replace(x=x, y=y)


def _search(
    model: Model, step: Step, logged: LoggedBatch, candidates: Dataset
) -> tuple[np.ndarray, Float[Array, " 2"], Float[Array, " 2"]]:
    """Returns which candidates to take, and the errors at both starts and where these led.

    The Gram matrix is of the candidates and the whole batch, so that batches with more or fewer
    forgotten examples have it computed by one program.
    """
    forgotten = np.flatnonzero(logged.forget)
    mean = batch_gradient(model, step.variables, logged.batch.take(forgotten))
    together = candidates._replace(
        x=jnp.concatenate([candidates.x, logged.batch.x]),
        y=jnp.concatenate([candidates.y, logged.batch.y]),
    )
    products = centred_products(model, step.variables, together, mean)
    c, targets = candidates.size, candidates.size + forgotten
    host = np.asarray(products)
    nearest = np.argsort(np.diag(host)[:c], kind="stable")[: len(forgotten)]
    starts = jnp.asarray(np.stack([nearest, _matched(host, c, targets)]), jnp.int32)
    among = products[:c, :c]
    before, (ends, after, _) = scores(among, starts), exchange(among, starts)
    best = np.asarray(ends[jnp.argmin(after)])
    scale = step.learning_rate / step.batch_size
    first, last = (scale * jnp.sqrt(jnp.maximum(score, 0)) for score in (before, after))
    return best, first, last


def _matched(products: np.ndarray, c: int, targets: np.ndarray) -> np.ndarray:
    """Returns for each target in turn the nearest of the first c points that is left."""
    squares = np.diag(products)
    distances = squares[None, :c] + squares[targets, None] - 2 * products[targets, :c]
    chosen: list[int] = []
    for row in distances:
        row[chosen] = np.inf
        chosen.append(int(np.argmin(row)))
    return np.array(chosen)
