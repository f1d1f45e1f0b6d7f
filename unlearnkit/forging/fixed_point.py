"""Greedy search in integer arithmetic, where an error of zero means equality."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from unlearnkit.base import Dataset, Model, Variables
from unlearnkit.forging.greedy import GreedyForger, SubsetPlan, candidates_of, draw_points
from unlearnkit.forging.steps import BatchLoss, honest_step
from unlearnkit.kernels import gradient_bank


class ExactSearch(NamedTuple):
    """What a search for exact forgeries found.

    Attributes:
      candidates: M, how many batches were tried.
      exact: how many take the step to the last bit.
      nearest: the least over candidates of their largest difference in the coordinates compared
        first, in units of the last place.
    """

    candidates: int
    exact: int
    nearest: int


def search_exact(
    key: Key[Array, ""],
    model: Model,
    variables: Variables,
    batch: Dataset,
    allowed: Dataset,
    *,
    points: int = 2000,
    candidates: int = 100_000,
    fraction_bits: int = 16,
    coordinates: int = 64,
) -> ExactSearch:
    """Returns how many of M batches of other examples have exactly the gradient of `batch`.

    Per-example gradients are rounded to multiples of 2^-f; sums and the division by b, rounded
    down, are integer arithmetic, whose result no order of summation changes. Candidates are those
    of `GreedyForger`. They are compared in the coordinates that vary the most, and in all where
    these agree.

    Args:
      key: draws points and candidates.
      model: the network.
      variables: where.
      batch: [b] examples, whose gradient is wanted.
      allowed: other examples.
      points: how many of these are drawn.
      candidates: M.
      fraction_bits: f.
      coordinates: how many are compared first.

    Raises:
      ValueError: see `GreedyForger`; a count that is not positive, or bits outside of 1 … 30.

    Source: Baluta et al. 2023, as told in Suliman et al. 2024, §3: greedy search never reaches zero
    error.
    """
    if min(points, candidates, coordinates) < 1 or not 1 <= fraction_bits <= 30:
        raise ValueError(
            "points, candidates and coordinates must be >= 1 and fraction_bits in 1 … 30, got "
            f"{points}, {candidates}, {coordinates} and {fraction_bits}"
        )
    points_key, search_key = jax.random.split(key)
    step = honest_step(model, variables, batch, 1.0)
    drawn = draw_points(points_key, model, step, allowed, points)
    own = _fixed_point(model, variables, batch, fraction_bits)
    others = _fixed_point(model, variables, allowed.take(drawn), fraction_bits)
    target, b = own.sum(0) // batch.size, batch.size
    first = np.argsort(-others.var(axis=0), kind="stable")[:coordinates]
    compared = np.ascontiguousarray(others[:, first])
    plan = GreedyForger(points, candidates).plan(len(drawn), b)
    exact, nearest, left = 0, np.iinfo(np.int64).max, candidates
    for batches in _batches(search_key, plan):
        if left == 0:
            break
        tried = batches[:left]
        left -= len(tried)
        means = compared[tried].sum(1) // b
        distance = np.abs(means - target[first]).max(1)
        nearest = min(nearest, int(distance.min()))
        for rows in tried[distance == 0]:
            exact += bool(np.array_equal(others[rows].sum(0) // b, target))
    return ExactSearch(candidates, exact, nearest)


def _fixed_point(
    model: Model, variables: Variables, dataset: Dataset, bits: int
) -> Int[np.ndarray, "n p"]:
    with jax.default_matmul_precision("highest"):
        bank = gradient_bank(BatchLoss(model), variables.params, dataset)
    return np.round(np.asarray(bank, np.float64) * 2.0**bits).astype(np.int64)


def _batches(key: Array, plan: SubsetPlan) -> Iterator[np.ndarray]:
    """Yields the candidates, some hundreds at a time."""
    for permutation in range(plan.permutations):
        batches = np.asarray(candidates_of(key, plan, permutation))
        yield from np.array_split(batches, max(len(batches) // 500, 1))
