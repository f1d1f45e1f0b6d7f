"""Exchange of samples: a stronger search than the greedy one, on the same Gram matrix."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from unlearnkit.base import Cost, Dataset, Forged, Model
from unlearnkit.costs import Stopwatch
from unlearnkit.forging.greedy import GreedyForger, as_errors, draw_points
from unlearnkit.forging.steps import Step, difference_products, step_error
from unlearnkit.validation import check_at_least

_ROUNDING = 1e-6
"""An exchange counts if the score falls by more than this share; less is the sums' rounding."""
_MOST_SWAPS = 10_000
"""Of one start; each takes b (n - b) sums."""


class SwapInfo(NamedTuple):
    """How a search by exchanges went.

    Attributes:
      indices: [b] the batch's examples in `allowed`.
      starts: [restarts + relaxed] the error at each start, the relaxation's last.
      ends: [restarts + relaxed] where the exchanges from there led.
      swaps: [restarts + relaxed] how many exchanges.
      bound: no b of the points err less, rounding apart; 0 without the relaxation.
      cost: what it took.
    """

    indices: Int[Array, " b"]
    starts: Float[Array, " m"]
    ends: Float[Array, " m"]
    swaps: Int[Array, " m"]
    bound: Float[Array, ""]
    cost: Cost


@dataclasses.dataclass(frozen=True)
class SwapForger:
    """Exchanges one example of the batch for another of the points while the error falls.

      F(S) = 1_Sᵀ K 1_S,   F(S - i + j) = F(S) - 2 v_i + 2 v_j + K_ii + K_jj - 2 K_ij,   v = K 1_S

    Each time the best of all b (n - b) exchanges is made, until none lowers the score by more than
    the rounding of its sums, or the score is 0 to rounding, or 10,000 were made. It starts at the
    best candidates of greedy searches, and at the rounding of a convex relaxation,

      min_w wᵀ K w,   0 <= w <= 1,   Σ w = b,

    by Frank-Wolfe steps, whose duality gap also bounds what any choice among the points can reach.

    Attributes:
      points: n, how many allowed examples are drawn; all where there are fewer.
      candidates: of each greedy start.
      restarts: greedy starts.
      relaxed: whether to start at the relaxation too.
      relaxation_steps: of Frank-Wolfe.

    Example:
      forge = forging.SwapForger(points=1000)
      batch, error, info = forge(key, model, step, allowed)

    Source: ours; start and criterion as in `GreedyForger`.
    """

    points: int = 2000
    candidates: int = 2000
    restarts: int = 4
    relaxed: bool = True
    relaxation_steps: int = 2000

    def __post_init__(self) -> None:
        check_at_least(self, 1, "points", "candidates", "relaxation_steps")
        if self.restarts < 0 or self.restarts + self.relaxed < 1:
            raise ValueError(f"restarts must be >= 1, or 0 with relaxed=True, got {self.restarts}")

    def __call__(self, key: Key[Array, ""], model: Model, step: Step, allowed: Dataset) -> Forged:
        """Returns the best batch that exchanges lead to; see `GreedyForger`."""
        with Stopwatch() as watch:
            points_key, search_key = jax.random.split(key)
            points = draw_points(points_key, model, step, allowed, self.points)
            products = difference_products(model, step, allowed.take(points))
            starts, bound = self._starts(search_key, products, step.batch_size)
            before, (ends, after, swaps) = scores(products, starts), exchange(products, starts)
            indices = points[ends[jnp.argmin(after)]]
            batch = allowed.take(indices)
            error = step_error(model, step, batch)
            errors = [as_errors(value, step) for value in (before, after, bound)]
            jax.block_until_ready((error, errors))
        spent = float(len(points) + step.batch_size)
        cost = Cost(spent, watch.seconds, watch.compile_seconds)
        first, last, least = errors
        return Forged(batch, error, SwapInfo(indices, first, last, swaps, least, cost))

    def _starts(
        self, key: Key[Array, ""], products: Float[Array, "n n"], batch_size: int
    ) -> tuple[Int[Array, "m b"], Float[Array, ""]]:
        greedy = GreedyForger(self.points, self.candidates)
        keys = [jax.random.fold_in(key, start) for start in range(self.restarts)]
        starts = [greedy.search(one, products, batch_size)[0] for one in keys]
        if not self.relaxed:
            return jnp.stack(starts), jnp.zeros(())
        weights, bound = relax(products, batch_size, steps=self.relaxation_steps)
        rounded = jax.lax.top_k(weights, batch_size)[1]
        return jnp.stack([*starts, rounded]), bound


@jax.jit
def scores(products: Float[Array, "n n"], chosen: Int[Array, "m b"]) -> Float[Array, " m"]:
    """Returns 1_Sᵀ K 1_S of each of m choices."""
    return jax.vmap(lambda one: products[one][:, one].sum())(chosen)


@jax.jit
def exchange(
    products: Float[Array, "n n"], chosen: Int[Array, "m b"]
) -> tuple[Int[Array, "m b"], Float[Array, " m"], Int[Array, " m"]]:
    """Returns where exchanges lead from each of m choices, the scores there, and their number."""
    found: tuple[Int[Array, "m b"], Float[Array, " m"], Int[Array, " m"]] = jax.lax.map(
        partial(_exchange_one, products), chosen
    )
    return found


def _exchange_one(products: Array, chosen: Array) -> tuple[Array, Array, Array]:
    squares = jnp.diagonal(products)

    def score_of(chosen: Array) -> Array:
        """Returns the score of a set, by sums in one order whatever the order of `chosen`."""
        members = jnp.sort(chosen)
        return products[members][:, members].sum()

    def improve(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        chosen, score, swaps, _ = carry
        rows = products[chosen]
        sums = rows.sum(0)
        leaving = squares[chosen] - 2 * sums[chosen]
        change = leaving[:, None] + (squares + 2 * sums)[None] - 2 * rows
        change = change.at[:, chosen].set(jnp.inf)
        leaves, enters = jnp.unravel_index(jnp.argmin(change), change.shape)
        exchanged = chosen.at[leaves].set(enters)
        # The predicted change may be all rounding: the score itself must fall, so no set repeats.
        after = score_of(exchanged)
        helps = (score > 0) & (after < (1 - _ROUNDING) * score)
        chosen, score = jnp.where(helps, exchanged, chosen), jnp.where(helps, after, score)
        return chosen, score, swaps + helps, helps & (swaps + 1 < _MOST_SWAPS)

    start = (chosen, score_of(chosen), jnp.zeros((), jnp.int32), jnp.array(True))
    chosen, score, swaps, _ = jax.lax.while_loop(lambda carry: carry[3], improve, start)
    return chosen, score, swaps


@partial(jax.jit, static_argnames=("batch_size", "steps"))
def relax(
    products: Float[Array, "n n"], batch_size: int, *, steps: int
) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """Returns w of min wᵀ K w over 0 <= w <= 1, Σ w = b, and a lower bound of the minimum.

    Args:
      products: [n, n] K, positive semidefinite.
      batch_size: b <= n.
      steps: of Frank and Wolfe's method, each the cost of b rows of K.
    """

    def advance(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        weights, image, bound = carry
        vertex = jax.lax.top_k(-image, batch_size)[1]
        toward = products[vertex].sum(0)
        value = weights @ image
        # The objective is above its tangent: wᵀKw + 2 (Kw)ᵀ(z - w) at its least over the set.
        bound = jnp.maximum(bound, 2 * image[vertex].sum() - value)
        curvature = toward[vertex].sum() - 2 * weights @ toward + value
        size = jnp.clip((value - weights @ toward) / jnp.maximum(curvature, tiny), 0, 1)
        corner = jnp.zeros_like(weights).at[vertex].set(1)
        return (1 - size) * weights + size * corner, (1 - size) * image + size * toward, bound

    n = products.shape[0]
    tiny = jnp.finfo(products.dtype).tiny
    weights = jnp.full(n, batch_size / n, products.dtype)
    start = (weights, products @ weights, jnp.zeros((), products.dtype))
    weights, _, bound = jax.lax.fori_loop(0, steps, advance, start)
    return weights, bound
