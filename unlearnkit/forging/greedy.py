"""Greedy search over batches of other training examples."""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Cost, Dataset, Forged, Model
from unlearnkit.costs import Stopwatch
from unlearnkit.forging.steps import Step, check_forgeable, difference_products, step_error
from unlearnkit.validation import check_at_least

MAX_COMBINATIONS = 10_000
"""Candidates per permutation of the points, at most."""


class GreedyInfo(NamedTuple):
    """How a greedy search went.

    Attributes:
      indices: [b] the batch's examples in `allowed`.
      errors: [M] of all candidates.
      cost: what it took.
    """

    indices: Int[Array, " b"]
    errors: Float[Array, " M"]
    cost: Cost


@dataclasses.dataclass(frozen=True)
class GreedyForger:
    """Takes the best of M random batches of n allowed examples.

      S* = argmin_S η ‖(1/b) Σ_{i ∈ S} ∇ℓ_i - g‖₂ = argmin_S (η/b) (1_Sᵀ K 1_S)^½,
      K_ij = (∇ℓ_i - g)·(∇ℓ_j - g)

    The n gradients are computed once and K once; then a candidate costs no gradient. A permutation
    of the points is cut into parts of b / q examples, the sums of K over pairs of parts are taken
    once, and q parts make a candidate: each one is a uniformly drawn batch, as in the literature,
    and costs q² additions. Candidates of one permutation share parts and so are not independent;
    q = 1 makes them disjoint.

    Attributes:
      points: n, how many allowed examples are drawn; all where there are fewer.
      candidates: M.
      parts: q is the largest divisor of b up to this.

    Example:
      forge = forging.GreedyForger(points=500, candidates=10_000)
      batch, error, info = forge(key, model, step, allowed)

    Source: Thudi et al. 2022 and Kong et al. 2023, as told in Suliman et al. 2024, §2; the Gram
    matrix and the parts are ours.
    """

    points: int = 2000
    candidates: int = 2000
    parts: int = 4

    def __post_init__(self) -> None:
        check_at_least(self, 1, "points", "candidates", "parts")

    def __call__(self, key: Key[Array, ""], model: Model, step: Step, allowed: Dataset) -> Forged:
        """Returns the best candidate.

        Args:
          key: draws points and candidates.
          model: the network; its batch gradient must be the mean of its examples'.
          step: to be taken by another batch.
          allowed: examples; those to be forgotten are not among them.

        Raises:
          ValueError: see `unlearnkit.forging.steps.check_forgeable`; fewer points than b.
        """
        with Stopwatch() as watch:
            points_key, search_key = jax.random.split(key)
            points = draw_points(points_key, model, step, allowed, self.points)
            products = difference_products(model, step, allowed.take(points))
            best, scores = self.search(search_key, products, step.batch_size)
            indices = points[best]
            batch = allowed.take(indices)
            error = step_error(model, step, batch)
            errors = as_errors(scores, step)
            jax.block_until_ready((error, errors))
        spent = float(len(points) + step.batch_size)
        cost = Cost(spent, watch.seconds, watch.compile_seconds)
        return Forged(batch, error, GreedyInfo(indices, errors, cost))

    def search(
        self, key: Key[Array, ""], products: Float[Array, "n n"], batch_size: int
    ) -> tuple[Int[Array, " b"], Float[Array, " M"]]:
        """Returns the best candidate's points, and 1_Sᵀ K 1_S of all candidates.

        Args:
          key: draws the permutations.
          products: [n, n] K, see `difference_products`.
          batch_size: b.
        """
        plan = self.plan(products.shape[0], batch_size)
        scores = _score(key, products, plan)[: self.candidates]
        best = jnp.argmin(scores)
        return candidate(key, plan, int(best)), scores

    def plan(self, n: int, batch_size: int) -> SubsetPlan:
        """Returns how n points are cut into candidates."""
        q = max(d for d in range(1, min(self.parts, batch_size) + 1) if batch_size % d == 0)
        parts = n // (batch_size // q)
        combinations = min(math.comb(parts, q), MAX_COMBINATIONS, self.candidates)
        return SubsetPlan(
            n, batch_size // q, parts, q, combinations, -(-self.candidates // combinations)
        )


class SubsetPlan(NamedTuple):
    """How points are cut into candidates: permuted, partitioned, and parts combined.

    Attributes:
      points: n.
      size: points per part.
      parts: parts per permutation.
      q: parts per candidate.
      combinations: candidates per permutation.
      permutations: how many.
    """

    points: int
    size: int
    parts: int
    q: int
    combinations: int
    permutations: int


def draw_points(
    key: Key[Array, ""], model: Model, step: Step, allowed: Dataset, points: int
) -> Int[Array, " n"]:
    """Returns the indices of at most `points` allowed examples, without repetition.

    Args:
      key: draws the permutation.
      model: the network that took the step.
      step: to be forged.
      allowed: the examples to draw from.
      points: the most that are drawn, at least the batch size b.

    Raises:
      ValueError: a step or examples that no forger can take, or fewer points than b.
    """
    check_forgeable(model, step, allowed)
    if points < step.batch_size:
        raise ValueError(f"points must be >= {step.batch_size}, the batch size, got {points}")
    return jax.random.permutation(key, allowed.size)[:points]


def as_errors(scores: Float[Array, ...], step: Step) -> Float[Array, ...]:
    """Returns (η/b) score^½."""
    return step.learning_rate / step.batch_size * jnp.sqrt(jnp.maximum(scores, 0))


def candidate(key: Key[Array, ""], plan: SubsetPlan, index: int) -> Int[Array, " b"]:
    """Returns the points of one candidate of a search with this key.

    Args:
      key: of the search.
      plan: how the points are cut into candidates.
      index: of the candidate, from 0.
    """
    permutation, row = divmod(index, plan.combinations)
    return candidates_of(key, plan, permutation)[row]


def candidates_of(key: Key[Array, ""], plan: SubsetPlan, permutation: int) -> Int[Array, "k b"]:
    """Returns the points of all candidates of one permutation of a search with this key.

    Args:
      key: of the search.
      plan: how the points are cut into candidates.
      permutation: which, from 0.
    """
    parts, chosen = _partition(jax.random.fold_in(key, permutation), plan)
    return parts[chosen].reshape(plan.combinations, -1)


def _partition(key: Array, plan: SubsetPlan) -> tuple[Int[Array, "parts size"], Int[Array, "k q"]]:
    """Returns the points of each part of a permutation, and the parts of each candidate."""
    order_key, choice_key = jax.random.split(key)
    used = plan.parts * plan.size
    parts = jax.random.permutation(order_key, plan.points)[:used].reshape(plan.parts, plan.size)
    if plan.combinations == math.comb(plan.parts, plan.q):
        every = itertools.combinations(range(plan.parts), plan.q)
        return parts, jnp.asarray(np.array(list(every), np.int32))
    return parts, _draw_combinations(choice_key, plan)


def _draw_combinations(key: Array, plan: SubsetPlan) -> Int[Array, "k q"]:
    """Returns combinations of q different parts, each set equally likely.

    The j-th draw is one of the parts - j that are left, counted past those already taken.
    """
    taken = jnp.zeros((plan.combinations, 0), jnp.int32)
    for j in range(plan.q):
        drawn = jax.random.randint(
            jax.random.fold_in(key, j), (plan.combinations,), 0, plan.parts - j, jnp.int32
        )
        for i in range(j):
            drawn += drawn >= taken[:, i]
        taken = jnp.sort(jnp.concatenate([taken, drawn[:, None]], axis=1), axis=1)
    return taken


@partial(jax.jit, static_argnames="plan")
def _score(key: Array, products: Array, plan: SubsetPlan) -> Float[Array, " M"]:
    def one(permutation: Array) -> Array:
        parts, chosen = _partition(jax.random.fold_in(key, permutation), plan)
        rows = products[parts].sum(1)
        blocks = rows[:, parts].sum(-1)
        return blocks[chosen[:, :, None], chosen[:, None, :]].sum((1, 2))

    found: Array = jax.lax.map(one, jnp.arange(plan.permutations)).reshape(-1)
    return found
