"""Checks of a batch or of a log beyond its reproduction error."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from unlearnkit.base import Dataset, Normalisation, SoftDataset
from unlearnkit.host.order import several_epochs
from unlearnkit.host.random import host_key
from unlearnkit.training import Trajectory
from unlearnkit.validation import check_continuous

Batch: TypeAlias = Dataset | SoftDataset


class DomainViolations(NamedTuple):
    """How far a batch is from images and classes.

    Attributes:
      out_of_range: [b] the share of pixels below 0 or above 1.
      off_grid: [b] the share of pixels that are no multiple of 1/255.
      not_one_hot: [b] whether the label is no class.
    """

    out_of_range: Float[np.ndarray, " b"]
    off_grid: Float[np.ndarray, " b"]
    not_one_hot: Bool[np.ndarray, " b"]

    @property
    def flagged(self) -> Bool[np.ndarray, " b"]:
        """Which examples are no image of a class."""
        found: np.ndarray = (self.out_of_range > 0) | (self.off_grid > 0) | self.not_one_hot
        return found


def domain_violations(batch: Batch, *, slack: float = 1e-3) -> DomainViolations:
    """Returns what of a batch is outside of pixels on the 1/255 grid and one-hot labels.

    Args:
      batch: [b] examples.
      slack: what counts as rounding, in steps of the grid and in a label.

    Source: Suliman et al. 2024, §4: the labels and pixels of proposition 2 are not within the
    domain.
    """
    x = np.asarray(_normalisation(batch).invert(batch.x), np.float64)
    levels = 255 * x.reshape(len(x), -1)
    outside = (levels < -slack) | (levels > 255 + slack)
    off = np.abs(levels - np.round(levels)) > slack
    y = np.asarray(batch.y)
    one_hot = np.ones(len(y), bool)
    if y.ndim == 2:
        ordered = np.sort(y, axis=1)
        one_hot = (np.abs(ordered[:, :-1]).max(1) <= slack) & (np.abs(ordered[:, -1] - 1) <= slack)
    return DomainViolations(outside.mean(1), off.mean(1), ~one_hot)


def scalar_multiples(
    batch: Batch, accused: Batch, *, slack: float = 1e-6
) -> Bool[np.ndarray, "b a"]:
    """Returns which examples are a multiple of which accused one: 1 - |cos(x, x_a)| <= slack.

    Both in the network's input, where proposition 1 speaks of them; 0 is a multiple of everything.

    Args:
      batch: b examples to look at, of classes or of soft labels.
      accused: the examples whose multiples are looked for, a of them.
      slack: the largest 1 - |cos| that counts as the same direction; allows for rounding.

    Source: Suliman et al. 2024, proposition 1 and the remark below it.
    """
    x, a = _unit_rows(batch), _unit_rows(accused)
    # sin² = ‖x - (x·a) a‖² does not cancel where the angle is small; of x = 0 it is 0.
    cosine = x @ a.T
    sine = np.stack(
        [((x - np.outer(c, row)) ** 2).sum(1) for c, row in zip(cosine.T, a, strict=True)]
    )
    found: np.ndarray = 1 - np.sqrt(np.maximum(1 - sine.T, 0)) <= slack
    return found


def near_duplicates(
    batch: Batch, accused: Batch, *, distance: float = 0.02
) -> Bool[np.ndarray, "b a"]:
    """Returns which examples are within a root-mean-square `distance` in pixels of which accused.

    Pixels are in [0, 1]: 0.02 is five steps of the grid.

    Args:
      batch: b examples to look at.
      accused: the examples whose copies are looked for, a of them.
      distance: in pixels of [0, 1].
    """
    x, a = _pixels(batch), _pixels(accused)
    mean_squares = np.stack([((x - row) ** 2).mean(1) for row in a], axis=1)
    found: np.ndarray = np.sqrt(mean_squares) <= distance
    return found


def superposition(batch: Batch, accused: Batch) -> Float[np.ndarray, " b"]:
    """Returns the share of each example that the accused ones do not combine to: ‖x - P x‖ / ‖x‖.

    P projects onto the span of the accused examples. It is 0 for a superposition of them, as the
    batches of proposition 2 are of the original batch; compare with that of honest examples.

    Source: Suliman et al. 2024, figure 3.
    """
    x, a = _rows(batch), _rows(accused)
    _, sizes, basis = np.linalg.svd(a, full_matrices=False)
    basis = basis[sizes > 1e-10 * sizes[0]]
    left = x - (x @ basis.T) @ basis
    norms = np.linalg.norm(x, axis=1)
    found: np.ndarray = np.linalg.norm(left, axis=1) / np.where(norms > 0, norms, 1)
    return found


class Usage(NamedTuple):
    """How often examples occur in the logged steps.

    Attributes:
      counts: [n] times in the whole log.
      repeated: [epochs] examples that occur more than once in an epoch; 0 in an honest log.
      never: rows that occur nowhere in it.
    """

    counts: Int[np.ndarray, " n"]
    repeated: Int[np.ndarray, " epochs"]
    never: Int[np.ndarray, " m"]


def frequency_of_use(log: Trajectory) -> Usage:
    """Returns how often each example was used, by the steps that the log holds.

    An honest epoch is a permutation: none occurs twice in it, and over several epochs hardly one
    is left out. Forged batches repeat those that suit them and leave out the forgotten.
    """
    n, per_epoch = log.claim.data.examples, log.claim.steps_per_epoch
    logged = log.batches[: log.steps]
    counts, repeated = np.zeros(n, int), []
    for first in range(0, log.steps, per_epoch):
        epoch = np.bincount(logged[first : first + per_epoch].ravel(), minlength=n)
        counts += epoch
        repeated.append(int((epoch > 1).sum()))
    return Usage(counts, np.array(repeated, int), np.flatnonzero(counts == 0))


def redrawn_steps(log: Trajectory) -> Int[np.ndarray, " m"]:
    """Returns the steps whose batches are not those that the log's key draws.

    An owner who publishes the key before training is bound to its order: then no batch can be
    chosen, and a forger is left with changing the data.
    """
    claim = log.claim
    recipe = claim.recipe
    drawn = several_epochs(
        host_key(claim.order_key), range(recipe.epochs), claim.data.examples, recipe.batch_size
    )
    return np.flatnonzero((drawn != log.batches).any(axis=1))


def _normalisation(batch: Batch) -> Normalisation:
    return check_continuous(batch, method="a detector of forged images")


def _rows(batch: Batch) -> np.ndarray:
    _normalisation(batch)
    x = np.asarray(batch.x, np.float64)
    return x.reshape(len(x), -1)


def _pixels(batch: Batch) -> np.ndarray:
    x = np.asarray(_normalisation(batch).invert(batch.x), np.float64)
    return x.reshape(len(x), -1)


def _unit_rows(batch: Batch) -> np.ndarray:
    x = _rows(batch)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1)
